"""The models that a report shows in full: the one that validation chose, and the served one if it is another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from muralab.evaluation.evaluated_model import EvaluatedModel, best_of
from muralab.report import sections
from muralab.report.charts import Chart, operating_charts
from muralab.report.sentences import bounds, headline, number
from muralab.report.tables import Table
from muralab.report.verdict import confusion_sentence, find_registered, missed_sentence

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

SERVED = "Registered for serving, evaluated on test"
SERVED_TOO = " · registered for serving"
SHOWN = (("auroc", "AUROC"), ("kappa", "Kappa"))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number at the top of the page."""

    title: str
    value: str
    bounds: str
    reason: str
    """Why there is no interval."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spotlight:
    """One model in full; the parts of a model that was not evaluated are empty."""

    model: EvaluatedModel
    role: str
    """How the page came to show it, such as `Selected on validation, evaluated on test`."""
    figures: Sequence[Figure]
    headline: str
    confusion: str
    missed: str
    charts: Sequence[Chart] = ()
    subgroups: Table | None = None
    subgroup_note: str = ""
    """How to read its many intervals."""
    errors: Table | None = None
    gallery: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Caption -> picture."""
    n_studies: int = 0
    n_patients: int = 0

    @property
    def name(self) -> str:
        """For headings."""
        return self.model.title


def build_spotlights(
    models: Sequence[EvaluatedModel],
    registered: str | None,
    *,
    selection: str,
    galleries: Mapping[str, Mapping[str, NDArray[np.uint8]]],
    groups: pd.DataFrame | None = None,
) -> list[Spotlight]:
    """The models that are shown in full, the chosen one first.

    Args:
        models: those of the report.
        registered: the registered one, by its name or run id; None or "" where none is named.
        selection: how the chosen one was selected.
        galleries: run id -> pictures of its errors.
        groups: of the test studies, for the table of subgroups; None: part and number of views.
    """
    best, served = best_of(models), find_registered(models, registered)
    roles: dict[EvaluatedModel, str] = {}
    if best is not None:
        roles[best] = selection + (SERVED_TOO if best is served else "")
    if served is not None and served is not best:
        roles[served] = SERVED
    return [
        _build(model, role, list(models).index(model), galleries.get(model.run_id, {}), groups)
        for model, role in roles.items()
    ]


def _build(
    model: EvaluatedModel,
    role: str,
    position: int,
    gallery: Mapping[str, NDArray[np.uint8]],
    groups: pd.DataFrame | None,
) -> Spotlight:
    studies = None if model.problem() is not None else model.studies()
    subgroups = None if studies is None else sections.subgroup_table(model, groups)
    return Spotlight(
        model=model,
        role=role,
        figures=_figures(model),
        headline=headline(model),
        confusion=confusion_sentence(model),
        missed=missed_sentence(model),
        charts=[] if studies is None else operating_charts(model, position),
        subgroups=subgroups,
        subgroup_note=sections.subgroup_note(subgroups) if subgroups else "",
        errors=None if studies is None else sections.error_table(model),
        gallery=gallery,
        n_studies=0 if studies is None else len(studies),
        n_patients=0 if studies is None else int(studies["patient"].nunique()),
    )


def _figures(model: EvaluatedModel) -> list[Figure]:
    shown = []
    for name, title in SHOWN:
        interval = model.intervals().get(name)
        reason = model.problem() or (interval.reason if interval else None) or ""
        value = number(interval.estimate) if interval else "–"
        shown.append(Figure(title=title, value=value, bounds=bounds(interval) if interval else "", reason=reason))
    return shown
