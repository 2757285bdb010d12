"""The page: figures and tables put into one HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from muralab.report import sections
from muralab.report.charts import Chart, model_charts, search_charts
from muralab.report.entries import STUDY_METRICS, Context, Entry, Trial, winner_of
from muralab.report.judge import N_RESAMPLES, Judged, judge
from muralab.report.sentences import bounds, choice, difference_sentences, headline, number, unscored
from muralab.report.tables import Table, frame_table

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


def write_report(
    path: str | Path,
    *,
    context: Context,
    entries: Sequence[Entry],
    trials: Sequence[Trial] = (),
    previews: Mapping[str, NDArray[np.uint8]] | None = None,
    champion: str | None = None,
    gallery: Mapping[str, NDArray[np.uint8]] | None = None,
    n_resamples: int = N_RESAMPLES,
) -> Path:
    """Write the report of a sweep, a model or any set of runs as one self-contained HTML file.

    Args:
        path: the file to write; its folder is made.
        context: data, protocol and machine.
        entries: one evaluated model a recipe, in the order of the table.
        trials: every trial of the search.
        previews: recipe -> uint8 [H, W] grid of augmented pictures.
        champion: the entry that is the registered model, by recipe or run id; None: none was registered; "": not said.
        gallery: caption -> uint8 [H, W] or [H, W, 3] picture of an error; None keeps pictures out.
        n_resamples: of the patients, for the intervals.
    """
    judged = [judge(entry, image_metrics=STUDY_METRICS, n_resamples=n_resamples) for entry in entries]
    chosen = None if context.comparison else winner_of(entries)
    winner = next((one for one in judged if one.entry is chosen), None)
    values = {
        "context": context,
        "entries": entries,
        "winner": winner,
        "hero": _hero(winner),
        "choice": choice(entries, comparison=context.comparison),
        "hero_name": winner.entry.title if winner else _none_chosen(entries),
        "headline": headline(winner) if winner else "",
        "differences": []
        if context.comparison
        else [
            *difference_sentences(entries, n_resamples=n_resamples),
            *filter(None, [unscored(entries)]),
        ],
        "champion": champion_sentence(entries, champion),
        "charts": {name: _pictures(charts) for name, charts in model_charts(judged, winner, context).items()},
        "search_charts": _pictures(search_charts(trials, context.objective)),
        "previews": [preview(name, grid) for name, grid in (previews or {}).items()],
        "gallery": [preview(caption, picture) for caption, picture in (gallery or {}).items()],
        "tables": _tables(context, judged, winner, trials, n_resamples),
        "all_wrong": sections.all_wrong(judged),
        "audit_text": context.audit[0] if context.audit else "",
        "audit_errors": sections.audit_errors(context),
        "unreadable": None if context.unreadable is None else list(context.unreadable.items()),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(values), encoding="utf-8")
    return path


def _none_chosen(entries: Sequence[Entry]) -> str:
    return f"{len(entries)} models, none of them chosen" if entries else "No model was evaluated"


def render(values: Mapping[str, Any]) -> str:
    """The template with these values; every one of them is escaped."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("template.html.j2").render(values)


def champion_sentence(entries: Sequence[Entry], champion: str | None) -> str:
    """Which model is registered and, where another did better on validation, that it did."""
    if champion == "":
        return ""
    registered = next((entry for entry in entries if champion in (entry.name, entry.run_id)), None)
    if registered is None:
        return f"Registered model: {champion}." if champion else "No model was registered."
    winner = winner_of(entries)
    if winner is None or math.isnan(registered.selection_score):
        return f"The registered model is {registered.title}."
    if registered is winner:
        return f"The registered model is {registered.title}, which validation chose."
    return (
        f"The registered model is {registered.title}, although validation put {winner.title} first: their paired "
        "difference stands above."
    )


def figure_uri(figure: Figure) -> str:
    """A figure as an SVG data URI, text as outlines, the same bytes each time."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "muralab", "svg.fonttype": "path", "text.parse_math": False}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def preview(name: str, grid: NDArray[np.uint8]) -> Picture:
    """Pictures as a JPEG data URI, scaled down to the page's width."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(grid, dtype=np.uint8))
    image.thumbnail((PREVIEW_WIDTH_PX, 4 * PREVIEW_WIDTH_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri=uri, alt=name, caption=name, pixels=True)


def _pictures(charts: Sequence[Chart]) -> list[Picture]:
    return [Picture(uri=figure_uri(chart.figure), alt=chart.alt, caption=chart.caption) for chart in charts]


def _hero(winner: Judged | None) -> list[dict[str, str]]:
    if winner is None:
        return []
    shown = []
    for name, words in (("auroc", "AUROC"), ("kappa", "Kappa")):
        interval = winner.intervals.get(name)
        reason = winner.reason or (interval.reason if interval else None) or ""
        value = number(interval.estimate) if interval else "–"
        shown.append({"words": words, "value": value, "bounds": bounds(interval) if interval else "", "reason": reason})
    return shown


def _tables(
    context: Context, judged: Sequence[Judged], winner: Judged | None, trials: Sequence[Trial], n_resamples: int
) -> dict[str, Table | None]:
    subgroups = None
    if winner and winner.studies is not None:
        subgroups = sections.subgroup_table(winner, n_resamples=n_resamples)
    return {
        "study": sections.study_table([one.entry for one in judged], context) if judged else None,
        "operating": sections.operating_table(judged) if judged else None,
        "images": sections.image_table(judged) if judged else None,
        "subgroups": subgroups,
        "agreement": sections.agreement_table(judged),
        "errors": sections.error_table(winner) if winner else None,
        "trials": sections.trials_table(trials) if trials else None,
        "splits": frame_table(context.counted),
        "audit": frame_table(context.audit[1]) if context.audit and len(context.audit[1]) else None,
        "references": sections.reference_table(context.part),
    }
