"""Does a recipe learn as much as a plain fine-tune of the same network from the same weights?

    python -m bench.accuracy --data TREE --part hand --weights FILE [--size 112] [--epochs 2+5] [--set key=value,...]

Each fold of patients is tested once, each fold with a seed of its own; the validation set is drawn from the others.
Both sides see the same training images, size, epochs and initial weights:

- recipe: as `train` trains it, with its defaults (or `--set`); which epoch is kept, and the threshold, are chosen on
  the validation set.
- plain: AdamW at 1e-3 on the head, then 1e-4 on everything, one-cycle rates, batches of 16, flips, zoom 0.15,
  rotation of 20 degrees drawn from squares of 256 px; the last epoch is taken, and the validation set is not used.

Predictions of a side are kept in --cache, so that a second call with other settings repeats only what has changed.
Prints the AUROC of every fold, the mean difference with its interval over folds, and kappa at the recipe's threshold
and at 0.5, before and after calibration. About two minutes per fold and side at 112 px and 2+5 epochs on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch.nn import functional

from muralab.data.augment import Augment, draw_augmentation
from muralab.data.dataset import find_dataset
from muralab.data.splits import split_index
from muralab.evaluation.calibration import fit_calibration
from muralab.evaluation.metrics import evaluate_predictions
from muralab.evaluation.predictions import predict_images
from muralab.experiment import build_network, predict_sets, run_trial, set_threads
from muralab.recipe import Value
from muralab.training.phases import freeze, select_phase
from muralab.trial import TrialData, TrialSpec, read_data, recipes_of, uses_bfloat16, write_table

PLAIN_SIDE = 256
"""Side in px of the squares that the plain fine-tune augments."""
PLAIN_AUGMENT = Augment(zoom=0.15, rotate_degrees=20.0, flip=True)
PLAIN_BATCH = 16
PLAIN_RATES = {"upper": 1e-3, "full": 1e-4}
SETS = ("validation", "test")

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What both sides have in common."""

    data: str
    part: str
    weights: str
    recipe: str
    size: int
    epochs: tuple[int, int]
    folds: int
    precision: str
    threads: int
    folder: Path

    @property
    def overrides(self) -> dict[str, Value]:
        """Size and epochs as values of a recipe."""
        return {"image_size": self.size, "upper.epochs": self.epochs[0], "full.epochs": self.epochs[1]}

    def spec(self, fold: int, changes: Mapping[str, Value]) -> TrialSpec:
        """The trial of a fold (from 1), with the split of that fold written to its table."""
        table = self.folder / f"split-{self.folds}-{fold}.csv"
        if not table.exists():
            index = find_dataset(self.data, self.part, seed=0).index
            splits = split_index(index, protocol=f"test_folds={fold}/{self.folds}", seed=1000 + self.folds)
            write_table(table, index, dict(splits.items()))
        return TrialSpec(
            name=f"fold-{fold}",
            recipe=self.recipe,
            overrides={**self.overrides, **changes},
            seed=fold,
            weights=self.weights,
            table=str(table),
            cache_folder=str(self.folder / "cache"),
            folder=str(
                self.folder / "trials" / _digest(self.recipe, self.overrides, changes, self.precision) / str(fold)
            ),
            precision=self.precision,
            threads=self.threads,
        )


def train_recipe(setup: Setup, fold: int, changes: Mapping[str, Value]) -> Tables:
    """Train the recipe on a fold; the predictions of the weights that a trial keeps."""
    spec = setup.spec(fold, changes)
    scores: dict[str, float] = {}
    for result in run_trial(spec):
        if result.best:
            scores[result.phase] = result.validation[spec.objective]
    phase = select_phase(scores, recipes_of(spec)[1].kept_phase)
    return predict_sets(spec, phase, sets=SETS)[1]


def train_plain(setup: Setup, fold: int, changes: Mapping[str, Value]) -> Tables:
    """Fine-tune the recipe's network plainly on a fold; predictions of its last epoch."""
    del changes
    spec = setup.spec(fold, {})
    data = read_data(spec.table, spec.cache_folder, setup.size)
    larger = read_data(spec.table, spec.cache_folder, PLAIN_SIDE)
    network, recipe = build_network(spec, data), recipes_of(spec)[1]
    labels = torch.from_numpy(data.tables["train"]["label"].to_numpy(dtype=np.float32))
    rng = np.random.default_rng(spec.seed)
    per_epoch = len(labels) // PLAIN_BATCH
    for name, epochs in zip(("upper", "full"), setup.epochs, strict=True):
        freeze(network, recipe.phases[name])
        trained = [p for p in network.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=PLAIN_RATES[name])
        rates = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, PLAIN_RATES[name], total_steps=max(1, epochs * per_epoch)
        )
        for _ in range(epochs):
            network.train()
            if name == "upper":
                network.backbone.eval()
            for rows in np.split(rng.permutation(len(labels))[: per_epoch * PLAIN_BATCH], per_epoch):
                images = torch.from_numpy(draw_larger(larger, rows, setup.size, rng))
                optimiser.zero_grad(set_to_none=True)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=uses_bfloat16(spec)):
                    logits = network(images)
                loss = functional.binary_cross_entropy_with_logits(logits.float(), labels[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                rates.step()
    return {name: predict_images(network, data.cache, data.tables[name]) for name in SETS}


def draw_larger(data: TrialData, rows: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Augmented squares uint8 [B, size, size] of rows of the training table, drawn from larger squares."""
    drawn = np.empty((len(rows), size, size), np.uint8)
    places = data.cache.rows(data.tables["train"])[rows]
    for position, place in enumerate(places):
        draw = draw_augmentation(PLAIN_AUGMENT, int(rng.integers(2**62)))
        centre, scale = (PLAIN_SIDE - 1) / 2, draw.scale * size / PLAIN_SIDE
        matrix = cv2.getRotationMatrix2D((centre, centre), draw.angle_degrees, scale)
        matrix[:, 2] += (size - 1) / 2 - centre
        image = np.asarray(data.cache.images[place])
        image = image[:, ::-1].copy() if draw.mirrored else image
        drawn[position] = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=0)
    return drawn


SIDES: Mapping[str, Callable[[Setup, int, Mapping[str, Value]], Tables]] = {
    "recipe": train_recipe,
    "plain": train_plain,
}


def predictions(setup: Setup, side: str, fold: int, changes: Mapping[str, Value]) -> Tables:
    """A side's predictions of a fold, kept from an earlier call with the same settings where there was one."""
    key = _digest(side, setup.recipe, setup.data, setup.part, setup.weights, setup.overrides, changes, setup.precision)
    paths = {name: setup.folder / "predictions" / f"{key}-{setup.folds}-{fold}-{name}.csv" for name in SETS}
    if not all(path.exists() for path in paths.values()):
        tables = SIDES[side](setup, fold, changes)
        paths["test"].parent.mkdir(parents=True, exist_ok=True)
        for name, path in paths.items():
            tables[name].to_csv(path, index=False)
    return {name: pd.read_csv(path, dtype={"patient": str, "study": str}) for name, path in paths.items()}


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def figures_of(tables: Tables) -> dict[str, float]:
    """Test figures at study level: AUROC, and kappa, sensitivity and specificity at the stored threshold and at 0.5."""
    fitted = fit_calibration(tables["validation"])
    scaling = fitted.scaling("study")
    stored = evaluate_predictions(
        tables["test"], level="study", scaling=scaling, threshold=fitted.threshold_of("study")
    )
    raw = evaluate_predictions(tables["test"], level="study")
    calibrated = evaluate_predictions(tables["test"], level="study", scaling=scaling)
    return {
        "auroc": raw["auroc"],
        "kappa": stored["kappa"],
        "sensitivity": stored["sensitivity"],
        "specificity": stored["specificity"],
        "kappa at 0.5, raw": raw["kappa"],
        "kappa at 0.5, calibrated": calibrated["kappa"],
    }


def difference_line(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Mean paired difference with its 95% interval (Student's t) over folds."""
    gained = np.subtract(ours, theirs)
    mean = float(gained.mean())
    if len(gained) < 3:
        return f"{mean:+.3f} ({len(gained)} folds are too few for an interval)"
    low, high = stats.t.interval(0.95, len(gained) - 1, loc=mean, scale=stats.sem(gained))
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> None:
    """Train both sides on every fold and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--part", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--recipe", default="inception_add_gate")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--epochs", default="2+5")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, default=0, help="the first folds only")
    parser.add_argument("--set", default="", help="changes of the recipe, such as batch_size=16,augment.flip=true")
    parser.add_argument("--sides", default="recipe,plain")
    parser.add_argument("--precision", default="float32", help="of the training of both sides")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench-accuracy"))
    options = parser.parse_args()
    upper, full = (int(number) for number in options.epochs.split("+"))
    setup = Setup(
        data=options.data,
        part=options.part,
        weights=options.weights,
        recipe=options.recipe,
        size=options.size,
        epochs=(upper, full),
        folds=options.folds,
        precision=options.precision,
        threads=options.threads,
        folder=options.cache.absolute(),
    )
    setup.folder.mkdir(parents=True, exist_ok=True)
    set_threads(options.threads)
    changes = dict(change.split("=", 1) for change in options.set.split(",") if change)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in options.sides.split(",")}
    for fold in range(1, (options.only or options.folds) + 1):
        for side, rows in found.items():
            tables = predictions(setup, side, fold, changes if side == "recipe" else {})
            rows.append(figures_of(tables))
            print(f"fold {fold}, {side}: " + ", ".join(f"{k} {v:.3f}" for k, v in rows[-1].items()), flush=True)
    for side, rows in found.items():
        print(f"{side}, mean: " + ", ".join(f"{key} {np.mean([row[key] for row in rows]):.3f}" for key in rows[0]))
    for side in [side for side in found if side != "recipe" and "recipe" in found]:
        ours, theirs = ([row["auroc"] for row in found[name]] for name in ("recipe", side))
        print(f"AUROC, recipe minus {side}: {difference_line(ours, theirs)}")


if __name__ == "__main__":
    main()
