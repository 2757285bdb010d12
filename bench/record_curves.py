"""Record the learning curves of a sweep's trials without pruning, for `bench.pruning` to replay.

    python -m bench.record_curves cnn --seeds 0 1 2 3 4 --out bench/curves/cnn.csv      (about 10 minutes on two cores)
    python -m bench.record_curves inception inception_add_gate --seeds 0 --upper 3 --full 10 --image-size 80 \
        --weights inception_v3.safetensors --out bench/curves/inception.csv        (hours without bfloat16)

Trials of the demo, drawn as in a sweep and trained to the end of their schedule, two at a time. Trials that the file
holds already are not trained again.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from muralab.atomic import atomic_path
from muralab.config.commands import TuneConfig
from muralab.config.search import Machine, SearchConfig, resolve_search
from muralab.data.dataset import find_dataset, open_dataset
from muralab.data.source import DEMO
from muralab.experiment import run_trial, warm_up
from muralab.trial import TrialSpec, write_table
from muralab.tune.folders import Folders
from muralab.tune.sampler import draw_specs

COLUMNS = ("recipe", "seed", "trial", "phase", "epoch", "objective", "seconds")
AT_ONCE = 2
Row = tuple[str, int, int, str, int, float, float]


def resolve(arguments: argparse.Namespace, seed: int) -> SearchConfig:
    """The search whose trials are recorded."""
    options = TuneConfig(
        recipes=tuple(arguments.recipes),
        epochs=(arguments.upper, arguments.full),
        image_size=arguments.image_size,
        seed=seed,
        weights=arguments.weights,
        set={"full.patience": 0},  # a curve that ends early cannot be replayed to its end
    )
    machine = Machine(cpus=AT_ONCE, gpus=0, memory_bytes=8 * 2**30)
    return resolve_search(options, options.recipes, trials=arguments.trials, machines=(machine,))


def prepare(config: SearchConfig, folder: Path, weights: str) -> list[TrialSpec]:
    """The trials of one seed, with their decoded images and features."""
    seed, sizes = config.options.seed, {recipe.image_size for recipe in config.recipes.values()}
    source = find_dataset(DEMO, "wrist", protocol=config.options.protocol, seed=seed)
    silent = lambda _title: lambda _done, _total: None  # noqa: E731
    dataset = open_dataset(source, image_sizes=sizes, cache_folder=folder / "cache", progress=silent)
    folders = Folders(cache=folder / "cache", sweep=folder / f"sweep-{seed}")
    write_table(folders.table, dataset.index, dataset.tables)
    files = {name: weights if recipe.pretrained else "" for name, recipe in config.recipes.items()}
    specs = draw_specs(config, folders, files)
    for spec in specs[: len(config.recipes)]:
        warm_up(spec)
    return specs


def record(spec: TrialSpec) -> list[Row]:
    """Train one trial to its end; one row per epoch."""
    number = int(spec.name.rpartition("-")[2])
    with tempfile.TemporaryDirectory() as folder, closing(run_trial(replace(spec, folder=folder))) as epochs:
        return [
            (
                spec.recipe,
                spec.seed,
                number,
                one.phase,
                one.epoch,
                round(one.validation[spec.objective], 4),
                round(one.seconds, 2),
            )
            for one in epochs
        ]


def read_rows(path: Path) -> list[Row]:
    """The rows recorded so far."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (
                one["recipe"],
                int(one["seed"]),
                int(one["trial"]),
                one["phase"],
                int(one["epoch"]),
                float(one["objective"]),
                float(one["seconds"]),
            )
            for one in csv.DictReader(file)
        ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file."""
    ordered = sorted(rows, key=_in_training_order)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(ordered)


def _in_training_order(row: Row) -> tuple[str, int, int, bool, int]:
    """Key of a sort: "upper" comes before "full" in training, and after it in the alphabet."""
    recipe, seed, trial, phase, epoch, *_ = row
    return recipe, seed, trial, phase == "full", epoch


def main() -> None:
    """Record every missing trial, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--upper", type=int, default=1)
    parser.add_argument("--full", type=int, default=12)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--weights", default="none", help="a file of pretrained weights, or none")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    file = "" if arguments.weights == "none" else str(Path(arguments.weights).absolute())
    rows = read_rows(arguments.out)
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            known = {row[:3] for row in rows}
            specs = prepare(resolve(arguments, seed), Path(folder), file)
            missing = [one for one in specs if (one.recipe, seed, int(one.name.rpartition("-")[2])) not in known]
            with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool:
                for done in as_completed([pool.submit(record, spec) for spec in missing]):
                    rows += done.result()
                    write_rows(arguments.out, rows)
                    print(f"seed {seed}: {done.result()[-1]}", flush=True)


if __name__ == "__main__":
    main()
