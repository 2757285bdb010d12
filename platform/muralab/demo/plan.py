"""Which patients, studies and views the synthetic tree has, and what they show: everything but the pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from muralab.demo.findings import KIND_WEIGHTS, KINDS, Finding, draw_finding

# Fraction of studies with a wrong label. MURA's labels are noisy too; a small test set tolerates less noise.
LABEL_NOISE = {"train": 0.045, "valid": 0.02}
VIEWS_WEIGHTS = (0.14, 0.42, 0.34, 0.10)  # of 1 to 4 views per study
STUDIES_WEIGHTS = (0.70, 0.22, 0.08)  # of 1 to 3 studies per patient


@dataclass(frozen=True, kw_only=True)
class PartPlan:
    """How much of one part to draw.

    Attributes:
        part: "wrist" or "hand".
        train_studies: number of studies in the official train split.
        valid_studies: number of studies in the official valid split.
        train_abnormal: fraction of train studies that show a finding, 0 to 1.
        valid_abnormal: the same for valid.
    """

    part: str
    train_studies: int
    valid_studies: int
    train_abnormal: float
    valid_abnormal: float


# Ratios of abnormal to normal follow MURA: wrist 0.69, hand 0.37; valid is more balanced.
PARTS = (
    PartPlan(part="wrist", train_studies=190, valid_studies=100, train_abnormal=0.41, valid_abnormal=0.47),
    PartPlan(part="hand", train_studies=64, valid_studies=30, train_abnormal=0.28, valid_abnormal=0.40),
)


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """One study.

    Attributes:
        part: "wrist" or "hand".
        folder: path relative to the tree's root, in MURA's format.
        split: "train" or "valid".
        label: 1 for abnormal; the tree's label, which may be wrong, see `is_mislabelled`.
        finding: what the images show; None for a normal study.
        n_views: 1 to 4.
        first_view: index of the projection of the first view.
        patient_seed: of the patient's anatomy, the same in all studies of one patient.
        seed: of the views.
    """

    part: str
    folder: str
    split: str
    label: int
    finding: Finding | None
    n_views: int
    first_view: int
    patient_seed: int
    seed: int

    @property
    def is_mislabelled(self) -> bool:
        """Whether the label contradicts the images."""
        return bool(self.label) != (self.finding is not None)


def plan_studies(parts: Sequence[PartPlan], seed: int) -> list[StudyPlan]:
    """All studies of the tree in the order of its lists; deterministic."""
    studies: list[StudyPlan] = []
    patient = 1
    for split in ("train", "valid"):
        for number, plan in enumerate(parts):
            rng = np.random.default_rng(np.random.SeedSequence([seed, number, int(split == "valid")]))
            made = _plan_split(plan, split, patient, rng)
            patient = 1 + max(int(study.folder.split("/")[2][-5:]) for study in made) if made else patient
            studies += made
    return studies


def plan_images(parts: Sequence[PartPlan], seed: int, n_images: int | None) -> list[StudyPlan]:
    """Studies with a given number of images in all, in the proportions of the parts; deterministic.

    Args:
        parts: whose numbers of studies are scaled.
        seed: of everything drawn.
        n_images: 20 or more; None: the studies of `plan_studies`.
    """
    studies = plan_studies(parts, seed)
    if n_images is None:
        return studies
    factor = n_images / sum(study.n_views for study in studies)
    while True:
        studies = plan_studies([_scale(part, factor) for part in parts], seed)
        excess = sum(study.n_views for study in studies) - n_images
        if excess >= 0:
            return _drop_views(studies, excess)
        factor *= 1.05


def _scale(part: PartPlan, factor: float) -> PartPlan:
    numbers = {name: max(math.ceil(getattr(part, name) * factor), 2) for name in ("train_studies", "valid_studies")}
    return replace(part, **numbers)


def _drop_views(studies: Sequence[StudyPlan], excess: int) -> list[StudyPlan]:
    """Take the last view from as many studies as needed, and then whole studies from the end."""
    kept: list[StudyPlan] = []
    for study in studies:
        fewer = excess > 0 and study.n_views > 1
        kept.append(replace(study, n_views=study.n_views - 1) if fewer else study)
        excess -= fewer
    return kept[: len(kept) - excess] if excess > 0 else kept


def _plan_split(plan: PartPlan, split: str, patient: int, rng: np.random.Generator) -> list[StudyPlan]:
    n_studies = plan.train_studies if split == "train" else plan.valid_studies
    abnormal = plan.train_abnormal if split == "train" else plan.valid_abnormal
    kinds = _shuffled_kinds(n_studies, abnormal, rng)
    wrong = set(rng.permutation(n_studies)[: round(LABEL_NOISE[split] * n_studies)].tolist())
    views = _shuffled_counts(n_studies, VIEWS_WEIGHTS, rng)
    studies: list[StudyPlan] = []
    while len(studies) < n_studies:
        patient_seed = int(rng.integers(2**31))
        for number in range(1, 1 + int(rng.choice(3, p=STUDIES_WEIGHTS)) + 1):
            at = len(studies)
            if at == n_studies:
                break
            kind = kinds[at]
            label = int((kind is not None) != (at in wrong))
            suffix = "positive" if label else "negative"
            folder = f"{split}/XR_{plan.part.upper()}/patient{patient:05d}/study{number}_{suffix}"
            studies.append(
                StudyPlan(
                    part=plan.part,
                    folder=folder,
                    split=split,
                    label=label,
                    finding=draw_finding(plan.part, kind, rng) if kind else None,
                    n_views=views[at],
                    first_view=int(rng.integers(2)),
                    patient_seed=patient_seed,
                    seed=int(rng.integers(2**62)),
                )
            )
        patient += 1
    return studies


def _shuffled_kinds(n_studies: int, abnormal: float, rng: np.random.Generator) -> list[str | None]:
    """Draw an exact number of findings, with kinds in exact proportions, in random order."""
    n_abnormal = round(abnormal * n_studies)
    at = (np.arange(n_abnormal) + 0.5) / max(n_abnormal, 1)
    found: list[str | None] = [KINDS[i] for i in np.searchsorted(np.cumsum(KIND_WEIGHTS)[:-1], at)]
    found += [None] * (n_studies - n_abnormal)
    return [found[i] for i in rng.permutation(n_studies)]


def _shuffled_counts(n_studies: int, weights: tuple[float, ...], rng: np.random.Generator) -> list[int]:
    """Draw counts (from 1) in exact proportions, in random order."""
    at = (np.arange(n_studies) + 0.5) / max(n_studies, 1)
    counts = 1 + np.searchsorted(np.cumsum(weights)[:-1], at)
    return [int(count) for count in rng.permutation(counts)]
