"""Does `cnn_attention` train faster than the plain CNN, at least as well, and does it use its attention?

    python -m bench.attention                                (six minutes of one idle core; --full: 20 epochs, not 12)
    python -m bench.attention --data <MURA tree> --part hand

Five seeds of training on one split at 128 px, each with the recipe's own rates and the demo's batch size, one thread.
Time is CPU time, which other work on the machine affects least. Per seed: when each network's validation AUROC of
studies first reaches the best one of the plain CNN, and the test AUROC with the weights of its best epoch.

A control is trained likewise: the attention network with a 1x1 convolution to as many values in place of its attention.
The ablation takes a trained attention network and makes its attention uniform.

By default on 480 + 400 studies from the demo's generator with a seed of their own: the demo has 47 validation studies,
on which two seeds of one network differ by more than the networks do.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.common import Options, Row, build_parser, table
from muralab.data.dataset import find_dataset, open_dataset
from muralab.demo.dataset import write_demo
from muralab.demo.plan import PartPlan
from muralab.evaluation.metrics import evaluate_predictions
from muralab.evaluation.predictions import predict_images
from muralab.experiment import load_trained, run_trial
from muralab.recipe import Network
from muralab.recipe_loader import load_recipe
from muralab.trial import TrialSpec, write_table
from recipes.cnn_attention import build

PLAIN, ATTENTION, CONTROL = "cnn", "cnn_attention", "bench.attention"
SEEDS = (0, 1, 2, 3, 4)
WARM_UP_SEED = 99
SIZE = 128
GENERATED = PartPlan(part="wrist", train_studies=480, valid_studies=400, train_abnormal=0.41, valid_abnormal=0.47)
GENERATED_SEED = 200


def build_unattended(*, image_size: int, values: int = 16, **model: Any) -> Network:
    """The attention network with a 1x1 convolution to as many values instead of the attention."""
    network = build(image_size=image_size, values=values, **model)
    layers = list(network.backbone)  # type: ignore[call-overload]
    filters = layers[-3].num_features
    shrink = nn.Sequential(nn.Conv2d(filters, values, 1, bias=False), nn.BatchNorm2d(values), nn.ReLU())
    network.backbone = nn.Sequential(*layers[:-1], shrink)
    return network


RECIPE = dataclasses.replace(load_recipe(ATTENTION), build=build_unattended, summary="CNN, shrunk without attention")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One training."""

    seconds: Sequence[float]
    """CPU time until the end of each epoch, from the start of the first."""
    aurocs: Sequence[float]
    """Of validation studies, after each epoch."""
    test: float
    """AUROC of test studies with the weights of the best epoch."""

    @property
    def best(self) -> float:
        """The highest AUROC."""
        return max(self.aurocs)

    def reaches(self, auroc: float) -> float:
        """Seconds until the AUROC is first reached; infinite where it never is."""
        return next((s for s, value in zip(self.seconds, self.aurocs) if value >= auroc), math.inf)


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A trained attention network with and without its attention, on the test images."""

    correlation: float
    """Of the logits."""
    auroc: float
    uniform_auroc: float
    """With uniform attention; both of studies."""


def build_spec(recipe: str, seed: int, folder: Path, epochs: int) -> TrialSpec:
    """A trial of one network."""
    overrides = {"image_size": SIZE, "batch_size": 16, "upper.epochs": 0, "full.epochs": epochs, "full.patience": 0}
    return TrialSpec(
        name="bench",
        recipe=recipe,
        overrides=overrides,
        seed=seed,
        table=str(folder / "split.csv"),
        cache_folder=str(folder),
        folder=str(folder / f"{recipe}-{seed}"),
    )


def train_one(spec: TrialSpec) -> Curve:
    """Train, and test the weights of the best epoch."""
    seconds, aurocs, started = [], [], 0.0
    with closing(run_trial(spec)) as epochs:
        started = time.process_time()
        for result in epochs:
            seconds.append(time.process_time() - started)
            aurocs.append(result.validation[spec.objective])
    network, data = load_trained(spec, "full")
    test = predict_images(network, data.cache, data.tables["test"])
    return Curve(seconds=seconds, aurocs=aurocs, test=evaluate_predictions(test, level="study")["auroc"])


def ablate(spec: TrialSpec) -> Ablation:
    """Compare a trained network with itself under uniform attention."""
    network, data = load_trained(spec, "full")

    def uniform(_: nn.Module, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        n_positions = key.shape[-1]
        return torch.full((*query.shape[:2], n_positions, n_positions), 1 / n_positions)

    with_attention = predict_images(network, data.cache, data.tables["test"])
    layer = network.backbone[-1]  # type: ignore[index]
    layer.attend = MethodType(uniform, layer)
    without = predict_images(network, data.cache, data.tables["test"])
    logits = [found["logit"].to_numpy(dtype=np.float64) for found in (with_attention, without)]
    constant = logits[1].std() < 1e-6 * logits[0].std()  # rounding alone
    return Ablation(
        correlation=0.0 if constant else float(np.corrcoef(*logits)[0, 1]),
        auroc=evaluate_predictions(with_attention, level="study")["auroc"],
        uniform_auroc=0.5 if constant else evaluate_predictions(without, level="study")["auroc"],
    )


def open_split(data: str, part: str, folder: Path) -> None:
    """Decode a tree, or a new one from the demo's generator, and write its split."""
    tree = data or str(write_demo(folder / "tree", seed=GENERATED_SEED, parts=(GENERATED,)))
    source = find_dataset(tree, part, protocol="valid-as-test", seed=0)
    dataset = open_dataset(
        source, image_sizes=[SIZE], cache_folder=folder, progress=lambda _title: lambda _done, _total: None
    )
    write_table(folder / "split.csv", dataset.index, dataset.tables)


def measure(options: Options, data: str = "", part: str = "wrist") -> list[Row]:
    """Train the three networks with every seed."""
    epochs = 20 if options.full else 12
    curves: dict[str, list[Curve]] = {name: [] for name in (PLAIN, ATTENTION, CONTROL)}
    ablations = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        open_split(data, part, folder)
        train_one(build_spec(PLAIN, WARM_UP_SEED, folder, 1))  # imports and first calls, which count for neither side
        for seed in SEEDS:
            for name, found in curves.items():
                found.append(train_one(build_spec(name, seed, folder, epochs)))
                aurocs = " ".join(f"{value:.3f}" for value in found[-1].aurocs)
                print(f"seed {seed} {name}: {found[-1].seconds[-1]:.1f} s, test {found[-1].test:.3f} | {aurocs}")
            ablations.append(ablate(build_spec(ATTENTION, seed, folder, epochs)))
            print(f"seed {seed}: {ablations[-1]}", flush=True)
    where = f"{part}, {'a MURA tree' if data else 'generated'}, {SIZE} px, {epochs} epochs"
    return [
        *(_time_row(name, curves, where) for name in (ATTENTION, CONTROL)),
        *_quality_rows(curves, ablations, where),
    ]


def _time_row(name: str, curves: dict[str, list[Curve]], where: str) -> Row:
    levels = [plain.best for plain in curves[PLAIN]]
    theirs = [plain.reaches(level) for plain, level in zip(curves[PLAIN], levels)]
    ours = [curve.reaches(level) for curve, level in zip(curves[name], levels)]
    each = [a / b for a, b in zip(ours, theirs)]
    step = statistics.median(a.seconds[-1] / b.seconds[-1] for a, b in zip(curves[name], curves[PLAIN]))
    return Row(
        what=f"{_title(name)}: CPU time to the plain CNN's best validation AUROC, median of seeds ({where})",
        ours=f"{statistics.median(ours):.1f} s",
        theirs=f"{statistics.median(theirs):.1f} s",
        ratio=statistics.median(each),
        spread=(min(each), max(each)),
        at_most=1.0 if name == ATTENTION else None,
        note=f"an epoch takes {step:.2f} times the plain CNN's; not reached in {sum(map(math.isinf, ours))} seeds",
    )


def _quality_rows(curves: dict[str, list[Curve]], ablations: Sequence[Ablation], where: str) -> list[Row]:
    rows = []
    for name in (ATTENTION, CONTROL):
        gained = [a.test - b.test for a, b in zip(curves[name], curves[PLAIN])]
        ours, theirs = (statistics.mean(curve.test for curve in curves[side]) for side in (name, PLAIN))
        best = [statistics.mean(curve.best for curve in curves[side]) for side in (name, PLAIN)]
        rows.append(
            Row(
                what=f"{_title(name)}: test AUROC of studies, mean of seeds ({where})",
                ours=f"{ours:.3f}",
                theirs=f"plain CNN {theirs:.3f}",
                ratio=ours - theirs,
                spread=(min(gained), max(gained)),
                at_least=0.0 if name == ATTENTION else None,
                note=f"the ratio is a difference; best validation AUROC {best[0]:.3f}, plain CNN {best[1]:.3f}",
            )
        )
    correlation = [one.correlation for one in ablations]
    kept, uniform = (statistics.mean(getattr(one, key) for one in ablations) for key in ("auroc", "uniform_auroc"))
    rows.append(
        Row(
            what=f"attention made uniform: correlation of the logits, median of seeds ({where})",
            ours=f"{statistics.median(correlation):.2f}",
            theirs="1 if unused",
            ratio=statistics.median(correlation),
            spread=(min(correlation), max(correlation)),
            at_most=0.9,
            note=f"test AUROC {kept:.3f} with attention, {uniform:.3f} with uniform attention",
        )
    )
    return rows


def _title(name: str) -> str:
    return {ATTENTION: "attention", CONTROL: "control, no attention"}[name]


def main() -> None:
    """Command line."""
    parser = build_parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", default="", help="a MURA tree; default: generated studies")
    parser.add_argument("--part", default="wrist", help="of the tree")
    given = parser.parse_args()
    print(table(measure(Options(full=given.full), given.data, given.part), markdown=True))


if __name__ == "__main__":
    main()
