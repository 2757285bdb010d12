"""What a report needs besides the evaluated models: plain values that the caller reads from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchTrial:
    """One trial of the search, evaluated on the test set or not."""

    recipe: str
    name: str
    run_id: str
    status: str
    epochs: int
    objective: float
    values: Mapping[str, float | str] = field(default_factory=dict)
    """The searched values only."""
    curve: pd.Series = field(default_factory=lambda: pd.Series(dtype=float), repr=False)
    """The objective after each epoch, by the global epoch from 1."""
    boundary: float | None = None
    """The position between the epochs of the two phases; None where there is one phase."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question about shortcuts that was asked of the data or of a model, with its answer."""

    name: str
    """Of its files in a run, such as `metadata`."""
    title: str
    text: str
    """The answer, in sentences."""
    table: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Context:
    """What all models of a report have in common: data, protocol, machine."""

    title: str
    part: str
    data: str
    """`demo`, or the path of the data set."""
    synthetic: bool
    protocol: str
    seed: int
    image_size: int | str
    weights: str
    """As text, such as `random (no ImageNet weights were available)`."""
    split_counts: pd.DataFrame
    """Columns set, studies, patients, images, abnormal."""
    fingerprint: str
    unreadable: Mapping[str, str] | None
    """Image -> reason, of the images that were excluded. None where it is not known."""
    commit: str
    created: datetime
    machine: str
    notes: Sequence[str] = ()
    objective: str = "val_study_auroc"
    statements: Sequence[str] = ()
    """Decisions and findings about these models, in sentences that can be quoted; shown at the top."""
    comparison: bool = False
    """Whether recipes are compared over seeds: the statements are the result, and no single model is selected."""
    audit: tuple[str, pd.DataFrame] | None = None
    """A paragraph and a table of findings."""
    folds: pd.DataFrame | None = None
    """The figures of each fold and over all of them, where the models are pooled over folds."""
    checks: Sequence[Check] = ()
    """What was found out about shortcuts."""
    corrected_labels: str = ""
    """How many labels readers corrected, as a sentence; empty where labels are the data set's own."""
    groups: pd.DataFrame | None = None
    """The groups of every study, see `group_studies`; None where only part and number of views are known."""

    @property
    def counts_table(self) -> pd.DataFrame:
        """`split_counts` with a column name that says what `abnormal` counts."""
        return self.split_counts.rename(columns={"abnormal": "abnormal images"})
