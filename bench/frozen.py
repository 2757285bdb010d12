"""How much time do cached features of the frozen backbone save, and how much validation AUROC do they cost?

    python -m bench.frozen           (about four minutes; --full: four times the training studies, about twelve minutes)

The upper phase of the add-gate InceptionV3, 30 epochs on the demo's wrists. Ours: features of a few augmented views,
computed once (included in the time, although trials share them), then the head alone. Theirs: the backbone runs in
every epoch, over newly augmented training images and over the validation images. One thread, CPU time. With random
weights the AUROC is low and the difference means little: it has a target only with ImageNet weights (--weights).

A trial's own validation set has about 110 images, on which two runs of one method differ by more than the target. The
target therefore applies to 600 further studies from the same generator, drawn with a different seed and used for
nothing else; the difference on the trial's own images is reported as well. --full trains on four times as many studies,
from the other split of that drawing.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.common import Options, Row, cpu_seconds, run
from muralab.data.dataset import Dataset, find_dataset, open_dataset
from muralab.data.source import DEMO
from muralab.demo.dataset import write_demo
from muralab.demo.plan import PARTS, PartPlan
from muralab.errors import WeightsError
from muralab.evaluation.metrics import evaluate_predictions
from muralab.evaluation.predictions import predict_images
from muralab.experiment import ValidationEvaluator, build_network, set_threads
from muralab.recipe_loader import load_recipe
from muralab.training.phase_trainer import PhaseTrainer, TrainerSettings
from muralab.training.phases import freeze
from muralab.training.weights import resolve_weights
from muralab.trial import ImageData, TrialData, TrialSpec, read_data, recipes_of, write_table

RECIPE = "inception_add_gate"
EPOCHS = 30
SEEDS = (10, 11, 12)
"""Seeds of the split and the training; views and dropout were chosen on other seeds, 0 to 5."""
FURTHER = PartPlan(part="wrist", train_studies=4, valid_studies=600, train_abnormal=0.41, valid_abnormal=0.47)
FURTHER_SEED = 100
FULL_STUDIES = 760
SIZE = 80
SPEED_TARGET = 5.0
AUROC_TARGET = 0.01


def find_weights(wanted: str) -> str:
    """Path of the pretrained weights; empty for random weights if there are none."""
    try:
        return str(resolve_weights(wanted, load_recipe(RECIPE).pretrained, probe_timeout_s=2.0) or "")
    except WeightsError:
        return ""


def open_wrists(data: str, folder: Path, seed: int) -> Dataset:
    """Decode the wrists of a tree."""
    return open_dataset(
        find_dataset(data, "wrist", protocol="valid-as-test", seed=seed),
        image_sizes=[SIZE],
        cache_folder=folder,
        progress=lambda _title: lambda _done, _total: None,
    )


def read_further(root: Path, folder: Path) -> TrialData:
    """The further studies: the official valid split of a tree, as the set `test`."""
    dataset = open_wrists(str(root), folder, seed=0)
    write_table(folder / "further.csv", dataset.index, dataset.tables)
    return read_data(str(folder / "further.csv"), str(folder), SIZE)


def build_spec(data: str, folder: Path, seed: int, weights: str) -> TrialSpec:
    """A trial of the recipe on a tree, with an upper phase of 30 epochs."""
    dataset = open_wrists(data, folder, seed)
    write_table(folder / f"split-{seed}.csv", dataset.index, dataset.tables)
    return TrialSpec(
        name="bench",
        recipe=RECIPE,
        overrides={"image_size": SIZE, "batch_size": 16, "upper.epochs": EPOCHS},
        seed=seed,
        weights=weights,
        table=str(folder / f"split-{seed}.csv"),
        cache_folder=str(folder),
        folder=str(folder / "trial"),
    )


def train_upper(spec: TrialSpec, further: TrialData, *, cached: bool) -> tuple[float, float, float]:
    """CPU seconds of the phase; image-level AUROC of its last epoch on the further and on the validation images."""
    data, recipe = read_data(spec.table, spec.cache_folder, recipes_of(spec)[1].image_size), recipes_of(spec)[1]
    network, validate, images = build_network(spec, data), ValidationEvaluator(spec, data), ImageData(spec, data, "cpu")
    freeze(network, recipe.upper)
    settings = TrainerSettings(seed=spec.seed, ema_decay=recipe.ema_decay, clip_norm=recipe.clip_norm)
    trainers = []

    def work() -> None:
        trainer = PhaseTrainer(network, "upper", recipe.upper, images, settings, features=cached)
        for epoch in range(1, EPOCHS + 1):
            trainer.train_epoch(epoch)
            validate(trainer.evaluated, trainer.validation_features)
        trainers.append(trainer)

    time_s = cpu_seconds(work)
    on_further, on_validation = (
        evaluate_predictions(predict_images(trainers[0].evaluated, source.cache, table), level="image")["auroc"]
        for source, table in ((further, further.tables["test"]), (data, data.tables["validation"]))
    )
    return time_s, on_further, on_validation


def measure(options: Options) -> list[Row]:
    """Three seeds on the demo; with --full on more studies."""
    weights = find_weights(options.weights)
    set_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as kept:
        plan = replace(FURTHER, train_studies=FULL_STUDIES) if options.full else FURTHER
        root = write_demo(Path(kept) / "further", seed=FURTHER_SEED, parts=(plan,))
        further = read_further(root, Path(kept))
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:  # a new cache: features must be computed
                spec = build_spec(str(root) if options.full else DEMO, Path(folder), seed, weights)
                found.append([train_upper(spec, further, cached=cached) for cached in (True, False)])
            print(f"  seed {seed}: {found[-1]}", flush=True)
        n_further = len(further.tables["test"])
    kind = "pretrained" if weights else "random weights"
    studies = FULL_STUDIES if options.full else next(plan.train_studies for plan in PARTS if plan.part == "wrist")
    what = f"frozen: {EPOCHS} upper epochs on {studies} studies at {SIZE} px, {kind}"
    speed = [theirs[0] / ours[0] for ours, theirs in found]
    our_s, their_s = (statistics.mean(pair[side][0] for pair in found) for side in (0, 1))
    return [
        Row(
            what=f"{what}: speed",
            ours=f"{our_s:.1f} s with features",
            theirs=f"backbone each epoch {their_s:.1f} s",
            ratio=statistics.median(speed),
            spread=(min(speed), max(speed)),
            at_least=SPEED_TARGET,
        ),
        auroc_row(
            f"{what}: difference in AUROC, {n_further:,} validation images", found, 1, AUROC_TARGET if weights else None
        ),
        auroc_row(f"{what}: the same on the trial's own validation images", found, 2, None),
    ]


def auroc_row(what: str, found: Sequence[Sequence[Sequence[float]]], place: int, target: float | None) -> Row:
    """The difference in mean AUROC between the two sides; `place` is its index in what `train_upper` returns."""
    ours, theirs = ([pair[side][place] for pair in found] for side in (0, 1))
    gained = [a - b for a, b in zip(ours, theirs)]
    return Row(
        what=f"{what}, mean of {len(found)} seeds",
        ours=f"AUROC {statistics.mean(ours):.3f}",
        theirs=f"backbone each epoch {statistics.mean(theirs):.3f}",
        ratio=abs(statistics.mean(gained)),
        spread=(min(gained), max(gained)),
        at_most=target,
        note="the spread is over the seeds, ours minus theirs",
    )


if __name__ == "__main__":
    run(measure, __doc__)
