"""How many epochs does pruning save, and how much of the objective does it cost?

    python -m bench.pruning          (about three minutes on two cores; --full: three seeds)

16 trials of 3 + 12 epochs of the custom CNN on the demo, sampled as in a sweep, run twice on the same two cores: with
the scheduler of `muralab.tune` and without one. Training is seeded, so the epochs of a pruned trial equal the first
ones of the same trial in the full run: the two runs differ only in which trials were stopped.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from bench.common import Options, Row, run
from bench.search import Recorder, search
from muralab.config.commands import TuneConfig
from muralab.config.search import Machine, resolve_search
from muralab.data.dataset import DEMO, find_dataset, open_dataset
from muralab.trial import write_table
from muralab.tune.folders import Folders
from muralab.tune.sampler import draw_specs

RECIPE, N_TRIALS, UPPER, FULL = "cnn", 16, 3, 12
SIZE = 96
LEAST_SAVED = 0.30
MOST_LOST = 0.02


def search_once(folder: Path, seed: int, *, prune: bool) -> Recorder:
    """Run the 16 trials once."""
    options = TuneConfig(
        recipes=(RECIPE,), epochs=(UPPER, FULL), image_size=SIZE, seed=seed, weights="none", trials=N_TRIALS
    )
    config = resolve_search(
        options, options.recipes, trials=options.trials, machine=Machine(cpus=2, gpus=0, memory_bytes=8 * 2**30)
    )
    source = find_dataset(DEMO, "wrist", protocol=options.protocol, seed=seed)
    silent = lambda _title: lambda _done, _total: None  # noqa: E731
    dataset = open_dataset(source, image_sizes=[SIZE], cache_folder=folder / "cache", progress=silent)
    folders = Folders(cache=folder / "cache", sweep=folder / f"sweep-{seed}-{prune}")
    write_table(folders.table, dataset.index, dataset.tables)
    return search(draw_specs(config, folders, {RECIPE: ""}), folders.sweep, prune=prune)


def measure(options: Options) -> list[Row]:
    """Epochs saved and objective lost; with --full the mean of three seeds."""
    saved, lost, notes = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(3 if options.full else 1):
            whole, pruned = (search_once(Path(folder), seed, prune=prune) for prune in (False, True))
            saved.append(1 - pruned.n_epochs / whole.n_epochs)
            lost.append(whole.best - pruned.best)
            notes.append(f"{pruned.n_epochs} of {whole.n_epochs} epochs, best {pruned.best:.3f} of {whole.best:.3f}")
            print(f"  seed {seed}: {notes[-1]}", flush=True)
    n_seeds = f"{len(saved)} seed{'s' if len(saved) > 1 else ''}"
    what = f"pruning: {N_TRIALS} trials of {UPPER}+{FULL}, {n_seeds}"
    return [
        Row(
            what=f"{what}: epochs saved",
            ours=f"{statistics.mean(saved):.0%} saved",
            theirs="none without pruning",
            ratio=statistics.mean(saved),
            spread=(min(saved), max(saved)) if options.full else None,
            at_least=LEAST_SAVED,
            note="; ".join(notes),
        ),
        Row(
            what=f"{what}: best objective lost",
            ours=f"{statistics.mean(lost):.3f}",
            theirs="the full run's best",
            ratio=statistics.mean(lost),
            spread=(min(lost), max(lost)) if options.full else None,
            at_most=MOST_LOST,
        ),
    ]


if __name__ == "__main__":
    run(measure, __doc__)
