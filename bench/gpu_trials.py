"""One trial of each of the study's recipes at its own schedule on real radiographs, on a GPU, without Ray or MLflow.

    python -m bench.gpu_trials --data TREE --part hand [--weights FILE] [--size PX] [--epochs 30+70] [--budget 240]

The split is that of `train` with seed 0 (`--protocol` names another). Prints each recipe's time, epochs per minute, and
the test AUROC and kappa of the weights that a trial keeps. A recipe that begins after the budget (seconds) is "not
measured". --weights serve the recipes with a pretrained backbone; without them they start from random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from bench.accuracy import SETS, figures_of
from muralab.data.dataset import find_dataset
from muralab.data.splits import split_index
from muralab.experiment import predict_sets, run_trial, set_threads
from muralab.processor import count_cpus
from muralab.recipe import Value
from muralab.recipe_loader import load_recipe
from muralab.training.device import resolve_precision
from muralab.training.phases import select_phase
from muralab.trial import TrialSpec, recipes_of, write_table

RECIPES = ("cnn", "cnn_attention", "inception", "inception_add_gate")


def train(spec: TrialSpec) -> tuple[str, int, float, dict[str, float]]:
    """Train a trial; the phase whose weights it keeps, its epochs, its seconds, and its test figures."""
    scores: dict[str, float] = {}
    started_s, epochs = time.perf_counter(), 0
    for result in run_trial(spec):
        epochs += 1
        if result.best:
            scores[result.phase] = result.validation[spec.objective]
    seconds = time.perf_counter() - started_s
    phase = select_phase(scores, recipes_of(spec)[1].kept_phase)
    return phase, epochs, seconds, figures_of(predict_sets(spec, phase, sets=SETS)[1])


def main() -> None:
    """Train the recipes in turn and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--part", required=True)
    parser.add_argument("--weights", default="")
    parser.add_argument("--protocol", default="valid-as-test")
    parser.add_argument("--size", type=int, default=0, help="of images, in px; the recipe's own if not given")
    parser.add_argument("--epochs", default="", help="upper+full; the recipe's own if not given")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds after which no other recipe begins")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    place = torch.cuda.get_device_name() if gpu else f"{count_cpus()} CPU cores"
    overrides: dict[str, Value] = {"image_size": options.size} if options.size else {}
    if options.epochs:
        upper, full = (int(number) for number in options.epochs.split("+"))
        overrides |= {"upper.epochs": upper, "full.epochs": full}
    set_threads(count_cpus())
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = find_dataset(options.data, options.part, seed=0).index
        splits = split_index(index, protocol=options.protocol, seed=0)
        write_table(folder / "split.csv", index, dict(splits.items()))
        for recipe in RECIPES:
            if time.perf_counter() - began_s > options.budget:
                print(f"{place}, {recipe}: not measured", flush=True)
                continue
            spec = TrialSpec(
                name=recipe,
                recipe=recipe,
                overrides=overrides,
                weights=options.weights if load_recipe(recipe).pretrained else "",
                table=str(folder / "split.csv"),
                cache_folder=str(folder / "cache"),
                folder=str(folder / recipe),
                gpu=gpu,
                precision=resolve_precision("auto", "cuda" if gpu else "cpu"),
                threads=count_cpus(),
            )
            phase, epochs, seconds, figures = train(spec)
            print(
                f"{place}, {recipe}, {recipes_of(spec)[1].image_size} px, {spec.precision}: {epochs} epochs in "
                f"{seconds:.0f} s, {60 * epochs / seconds:.1f} a minute; weights of the {phase} phase; test AUROC "
                f"{figures['auroc']:.3f}, kappa {figures['kappa']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
