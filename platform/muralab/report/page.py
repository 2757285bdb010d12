"""The report: figures and tables in one HTML file that loads nothing from the network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from muralab.evaluation.evaluated_model import EvaluatedModel, best_of
from muralab.report import sections
from muralab.report.charts import Chart, model_charts, search_charts
from muralab.report.checklists import checklist_tables
from muralab.report.context import Context, SearchTrial
from muralab.report.glossary import GLOSSARY
from muralab.report.methods import methods
from muralab.report.references import is_studys_data
from muralab.report.sentences import (
    ABOUT_INTERVALS,
    calibration_notes,
    calibration_sentence,
    difference_sentences,
    kept_weights,
    selection,
    unscored,
)
from muralab.report.spotlight import Spotlight, build_spotlights
from muralab.report.tables import Table, frame_table
from muralab.report.verdict import registered_sentence, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREVIEW_WIDTH_PX = 960


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image inside the page."""

    uri: str
    alt: str
    caption: str = ""
    pixels: bool = False
    """Whether it is a photograph or a grid of images rather than a chart."""


def write_report(
    path: str | Path,
    *,
    context: Context,
    models: Sequence[EvaluatedModel],
    trials: Sequence[SearchTrial] = (),
    previews: Mapping[str, NDArray[np.uint8]] | None = None,
    champion: str | None = None,
    galleries: Mapping[str, Mapping[str, NDArray[np.uint8]]] | None = None,
) -> Path:
    """Write the report of a sweep, a model or any set of runs as one self-contained HTML file.

    Args:
        path: the file to write; its folder is created.
        context: data, protocol and machine.
        models: usually one per recipe, in the order of the tables.
        trials: every trial of the search.
        previews: recipe -> uint8 [H, W] grid of augmented images.
        champion: the registered model, by its name or run id; None: none was registered; "": not mentioned.
        galleries: run id -> caption -> uint8 [H, W] or [H, W, 3] image of an error of that model; None shows none.
    """
    best = None if context.comparison else best_of(models)
    trained = [model for model in models if not model.is_pooled]
    how = selection(models, comparison=context.comparison)
    shown = (
        []
        if context.comparison
        else build_spotlights(models, champion, selection=how, galleries=galleries or {}, groups=context.groups)
    )
    values: dict[str, Any] = {
        "context": context,
        "models": models,
        "selection": how,
        "hero_name": "" if shown else _no_best(models),
        "spotlights": [_spotlight_values(one) for one in shown],
        "summary": [] if context.comparison else _summary(models, champion, context),
        "about_intervals": ABOUT_INTERVALS,
        "differences": _differences(models, context),
        "champion": registered_sentence(models, champion, part=context.part),
        "kept": [f"{model.title}: {kept_weights(model, context.objective)}" for model in trained],
        "charts": {name: _pictures(charts) for name, charts in model_charts(models, best, context).items()},
        "search_charts": _pictures(search_charts(trials, context.objective)),
        "previews": [embed_image(name, grid) for name, grid in (previews or {}).items()],
        "tables": _tables(context, models, trials),
        "is_studys_data": is_studys_data(context),
        "glossary": GLOSSARY,
        "methods": methods(models, context),
        "checklists": checklist_tables(models, context),
        "calibrations": [calibration_sentence(model) for model in models],
        "calibration_notes": calibration_notes(models),
        "error_sentence": sections.error_sentence(models),
        "audit_text": context.audit[0] if context.audit else "",
        "audit_errors": sections.audit_errors(context),
        "unreadable": None if context.unreadable is None else list(context.unreadable.items()),
        "checks": [(check, frame_table(check.table)) for check in context.checks],
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(values), encoding="utf-8")
    return path


def render(values: Mapping[str, Any]) -> str:
    """The template with these values; each is escaped."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("template.html.j2").render(values)


def figure_uri(figure: Figure) -> str:
    """A figure as an SVG data URI with text as outlines; the same bytes each time."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "muralab", "svg.fonttype": "path", "text.parse_math": False}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def embed_image(caption: str, pixels: NDArray[np.uint8]) -> Picture:
    """Pixels as a JPEG data URI, scaled down to the width of the page."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    image.thumbnail((PREVIEW_WIDTH_PX, 4 * PREVIEW_WIDTH_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri=uri, alt=caption, caption=caption, pixels=True)


def _pictures(charts: Sequence[Chart]) -> list[Picture]:
    return [Picture(uri=figure_uri(chart.figure), alt=chart.alt, caption=chart.caption) for chart in charts]


def _no_best(models: Sequence[EvaluatedModel]) -> str:
    if len(models) == 1 and models[0].is_pooled:
        return models[0].title
    return f"{len(models)} models, none of them selected" if models else "No model was evaluated"


def _differences(models: Sequence[EvaluatedModel], context: Context) -> list[str]:
    if context.comparison:
        return []
    return [*difference_sentences(models), *filter(None, [unscored(models)])]


def _spotlight_values(one: Spotlight) -> dict[str, Any]:
    return {
        "of": one,
        "charts": _pictures(one.charts),
        "gallery": [embed_image(caption, picture) for caption, picture in one.gallery.items()],
    }


def _summary(models: Sequence[EvaluatedModel], champion: str | None, context: Context) -> list[str]:
    return summary(models, champion or None, part=context.part, synthetic=context.synthetic)


def _tables(
    context: Context, models: Sequence[EvaluatedModel], trials: Sequence[SearchTrial]
) -> dict[str, Table | None]:
    trained = [model for model in models if not model.is_pooled]
    return {
        "folds": frame_table(context.folds) if context.folds is not None else None,
        "phases": sections.phase_table(trained, context) if trained else None,
        "study_metrics": sections.study_metrics_table(models) if models else None,
        "image_metrics": sections.image_metrics_table(models) if models else None,
        "agreement": sections.agreement_table(models),
        "trials": sections.trials_table(trials) if trials else None,
        "splits": frame_table(context.counts_table),
        "audit": frame_table(context.audit[1]) if context.audit and len(context.audit[1]) else None,
        "references": sections.reference_table(context.part),
    }
