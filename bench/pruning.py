"""How many epochs does pruning save, and what does it cost in the objective?

    python -m bench.pruning          (about three minutes on two cores; --full: three seeds)

16 trials of 3 + 12 epochs of the custom CNN on the demo, drawn as a sweep draws them, are searched twice on the same
two cores: with the scheduler of `muralab.tune`, and with none. Training is seeded, so a pruned trial's epochs are the
first ones of the same trial in the full run; what differs is what was stopped.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import muralab.tune.executor
from bench.common import Options, Row, run
from bench.search import Diary, search
from muralab.config.settings import Request, check_request
from muralab.data.dataset import DEMO, find_dataset, open_dataset
from muralab.trial import write_table
from muralab.tune.plan import Folders, draw_specs

RECIPE, N_TRIALS, UPPER, FULL = "cnn", 16, 3, 12
SIZE = 96
LEAST_SAVED = 0.30
MOST_LOST = 0.02


def _no_scheduler(*_: Any) -> Any:
    from ray.tune.schedulers import FIFOScheduler

    return FIFOScheduler()


def search_once(folder: Path, seed: int, *, prune: bool) -> Diary:
    """One search of the 16 trials."""
    request = Request(
        recipes=RECIPE, trials=str(N_TRIALS), epochs=f"{UPPER}+{FULL}", image_size=str(SIZE), seed=seed, weights="none"
    )
    settings = check_request(request, cpus=2, gpus=0)
    dataset = open_dataset(
        find_dataset(DEMO, "wrist", protocol=request.protocol, seed=seed),
        image_sizes=[SIZE],
        cache_folder=folder / "cache",
        progress=lambda _title: lambda _done, _total: None,
    )
    folders = Folders(cache=folder / "cache", sweep=folder / f"sweep-{seed}-{prune}")
    write_table(folders.table, dataset.index, dataset.tables)
    specs = draw_specs(settings, folders, {RECIPE: ""})
    if prune:
        return search(specs, folders.sweep)
    with patch.object(muralab.tune.executor, "build_scheduler", _no_scheduler):
        return search(specs, folders.sweep)


def measure(options: Options) -> list[Row]:
    """Epochs saved and objective lost; the mean of three seeds where there is time."""
    saved, lost, words = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(3 if options.full else 1):
            whole, pruned = (search_once(Path(folder), seed, prune=prune) for prune in (False, True))
            saved.append(1 - pruned.n_epochs / whole.n_epochs)
            lost.append(whole.best - pruned.best)
            words.append(f"{pruned.n_epochs} of {whole.n_epochs} epochs, best {pruned.best:.3f} of {whole.best:.3f}")
            print(f"  seed {seed}: {words[-1]}", flush=True)
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
            note="; ".join(words),
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
