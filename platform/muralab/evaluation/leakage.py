"""Leakage: which evaluated images, or other images of their patients, a model was trained or selected on.

The one check that `evaluate`, `compare`, `report` and `promote` share. It takes two tables, the evaluated images and
the sets of a trained run, and knows neither MLflow nor files. A model has seen an image if it was trained (or selected)
on an image of the same patient, on a file with the same pixels under any name, or on a near-duplicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from muralab.data.audit.pictures import PICTURE_COLUMNS
from muralab.evaluation.intervals import MIN_PATIENTS

BY_PICTURES_ALONE = (
    "the evaluated images and those that {model} was trained on are of two data sets, so only the pictures were "
    "compared: other images of the same patients, and mirrored copies, would not be found"
)
SEEN_SETS = {"train": "was trained on", "validation": "was selected on"}
"""Sets of a run whose images its model has seen -> what that means; the worse first."""
MAX_LEAKED_SHARE = 0.05
"""Share of leaked images up to which a set is still called a test set, with a note; more is refused by `report`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Leakage:
    """What a model has seen of the images that it is evaluated on."""

    evaluated: pd.DataFrame
    """Image and patient of every evaluated image."""
    set_of_patient: dict[str, str] = field(default_factory=dict)
    """Patient -> the set (of `SEEN_SETS`) through which the model has seen them; unseen patients are missing."""
    names_compared: bool = True
    """Whether patients were compared by name too; across data sets their pictures alone are."""

    @cached_property
    def counts(self) -> dict[str, int]:
        """Set -> evaluated images of patients that the model has seen through it; sets without any are missing."""
        sets = self.evaluated["patient"].map(self.set_of_patient)
        return {name: int((sets == name).sum()) for name in SEEN_SETS if (sets == name).any()}

    @property
    def n_images(self) -> int:
        """Number of evaluated images of patients that the model has seen."""
        return sum(self.counts.values())

    @property
    def share(self) -> float:
        """Share of the evaluated images that are of patients that the model has seen, from 0 to 1."""
        return self.n_images / max(len(self.evaluated), 1)

    def sentence(self, model: str = "the model") -> str:
        """What the model has seen, with the counts; empty if that is nothing."""
        if not self.counts:
            return ""
        found = " and ".join(f"{count:,} of patients that it {SEEN_SETS[name]}" for name, count in self.counts.items())
        return f"of the {len(self.evaluated):,} evaluated images, {model} has seen {self.n_images:,}: {found}"


def find_leakage(evaluated: pd.DataFrame, sets: pd.DataFrame, *, same_tree: bool = False) -> Leakage:
    """Find what a model has seen of the images that it is evaluated on.

    Args:
        evaluated: image, patient and, as far as they are known, the `PICTURE_COLUMNS`; empty text where not.
        sets: the same of every image of a trained run, with its `set`.
        same_tree: whether both are known to be of one tree. Names of patients and images mean the same only within a
            tree; if it is not known, equal pixels under an equal name are taken as proof.

    Returns:
        The patients that the model has seen, each with the set in which it has seen them.
    """
    rows, seen = _with_pictures(evaluated), _with_pictures(sets)
    same_tree = same_tree or _are_of_one_tree(rows, seen)
    set_of_patient: dict[str, str] = {}
    for name in SEEN_SETS:
        part = seen[seen["set"] == name]
        found = _shows_a_picture_of(rows, part)
        if not same_tree:  # within a tree, the audit has compared the pictures of all pairs with an equal hash
            found |= rows["hash"].isin(set(part["hash"]) - {""})
        else:
            found |= rows["patient"].isin(set(part["patient"])) | rows["image"].isin(set(part["image"]))
        for patient in rows.loc[found, "patient"]:
            set_of_patient.setdefault(str(patient), name)
    return Leakage(evaluated=rows[["image", "patient"]], set_of_patient=set_of_patient, names_compared=same_tree)


def find_known_leakage(evaluated: pd.DataFrame, sets: pd.DataFrame, *, same_tree: bool) -> Leakage | None:
    """`find_leakage`; None if it cannot be decided: another tree, and a table without the identities of its pictures.

    A copy of a tree at another path counts as another tree, since names alone do not show that it is a copy.
    """
    seen = sets[sets["set"].isin(list(SEEN_SETS))]
    known = all((_with_pictures(table)["pixels"] != "").all() for table in (evaluated, seen))
    return find_leakage(evaluated, sets, same_tree=same_tree) if same_tree or known else None


def with_identities(table: pd.DataFrame, sets: pd.DataFrame) -> pd.DataFrame:
    """Image, patient and the identities of the pictures of a table of predictions, from the split of its own run."""
    known = [column for column in PICTURE_COLUMNS if column in sets]
    return _with_pictures(table[["image", "patient"]].merge(sets[["image", *known]], on="image", how="left"))


def unseen_studies(table: pd.DataFrame, leakages: Sequence[Leakage]) -> list[str]:
    """The studies of a table of predictions whose patients no model has seen."""
    seen = {patient for one in leakages for patient in one.set_of_patient}
    return [str(study) for study in table.loc[~table["patient"].isin(seen), "study"].unique()]


def patients_by_class(table: pd.DataFrame) -> dict[str, int]:
    """Patients with a normal and with an abnormal study."""
    return {
        name: int(table.loc[table["label"] == label, "patient"].nunique())
        for label, name in ((0, "normal"), (1, "abnormal"))
    }


def too_few(table: pd.DataFrame) -> str:
    """Why the unseen rows of a table of predictions are too few to compare models on; empty if they are enough.

    A comparison needs an interval, and an interval `MIN_PATIENTS` of each class.
    """
    left = patients_by_class(table)
    if min(left.values()) >= MIN_PATIENTS:
        return ""
    return (
        f"{table['patient'].nunique()} patients are left that no model has seen ({left['normal']} with a normal and "
        f"{left['abnormal']} with an abnormal study), and a comparison needs {MIN_PATIENTS} of each"
    )


def _with_pictures(table: pd.DataFrame) -> pd.DataFrame:
    lacking = {column: "" for column in PICTURE_COLUMNS if column not in table}
    return table.assign(**lacking).fillna(dict.fromkeys(PICTURE_COLUMNS, ""))


def _shows_a_picture_of(rows: pd.DataFrame, seen: pd.DataFrame) -> pd.Series:
    """Whether each row shows a picture of the other table: equal pixels, or one group of near-duplicates."""
    pictures = (set(seen["pixels"]) | set(seen["group"])) - {""}
    return rows["pixels"].isin(pictures) | rows["group"].isin(pictures)


def _are_of_one_tree(rows: pd.DataFrame, seen: pd.DataFrame) -> bool:
    """Whether an image of both tables has the same pixels under the same name."""
    both = rows.merge(seen, on="image", suffixes=("", "_seen"))
    return bool(((both["pixels"] != "") & (both["pixels"] == both["pixels_seen"])).any())
