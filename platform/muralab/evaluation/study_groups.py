"""Groups of studies for figures by subgroup: every column of a data set, numbers in thirds, rare values together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from muralab.evaluation.intervals import MIN_PATIENTS

MAX_GROUPS = 8
"""Values of a column that are shown on their own, if at least `MIN_PATIENTS` patients share each; others are `other`.

So no name that was left in a column is ever shown.
"""
N_RANGES = 3
MISSING, OTHER = "not stated", "other"
VIEWS, PART = "number of views", "part"
MANY_VIEWS = 4


def group_studies(images: pd.DataFrame, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The group of each study by part, number of views and further columns.

    Args:
        images: one row per image: study, patient, part, and the columns. A study has the value of its first view.
        columns: such as sex, age, device, site.

    Returns:
        One row per study: study, and one column of text per grouping. Numbers are ranges, so that nothing here
        identifies a patient.
    """
    grouped = images.groupby("study", sort=True)
    found = pd.DataFrame({PART: grouped["part"].first(), VIEWS: grouped.size().map(_views)})
    patients = grouped["patient"].first()
    for name in columns:
        found[name] = _grouped(grouped[name].first(), patients)
    return found.reset_index()


def shown_groupings(studies: pd.DataFrame, groups: pd.DataFrame) -> list[str]:
    """The groupings with two groups or more of `MIN_PATIENTS` of both classes; part and number of views always.

    Args:
        studies: study, patient and label of those that are evaluated.
        groups: from `group_studies`.
    """
    rows = studies[["study", "patient", "label"]].merge(groups, on="study", how="left")
    chosen = []
    for name in groups.columns.drop("study"):
        patients = rows.groupby([name, "label"])["patient"].nunique().unstack(fill_value=0).reindex(columns=[0, 1])
        enough = int((patients.fillna(0).min(axis=1) >= MIN_PATIENTS).sum())
        if name in (PART, VIEWS) or enough > 1:
            chosen.append(str(name))
    return chosen


def _views(n_views: int) -> str:
    if n_views >= MANY_VIEWS:
        return f"{MANY_VIEWS} views or more"
    return f"{n_views} view{'' if n_views == 1 else 's'}"


def _grouped(values: pd.Series, patients: pd.Series) -> pd.Series:
    text = values.astype(str).where(values.notna(), "").str.strip()
    stated = text[text != ""]
    numbers = pd.to_numeric(stated, errors="coerce")
    if len(stated) and numbers.notna().all() and numbers.nunique() > MAX_GROUPS:
        return _ranges(numbers).reindex(text.index).fillna(MISSING)
    n_patients = patients.groupby(stated).nunique().sort_values(ascending=False, kind="stable")
    common = n_patients[n_patients >= MIN_PATIENTS].index[:MAX_GROUPS]
    return text.where(text.isin(common), OTHER).where(text != "", MISSING)


def _ranges(numbers: pd.Series) -> pd.Series:
    """Thirds of the numbers, named by where they are cut: the smallest and the largest number are single patients'."""
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, N_RANGES + 1)[1:-1]))
    names = [f"below {edges[0]:g}"]
    names += [f"{low:g} to below {high:g}" for low, high in pairwise(edges)]
    names.append(f"{edges[-1]:g} and above")
    return pd.Series([names[place] for place in np.searchsorted(edges, numbers, side="right")], index=numbers.index)
