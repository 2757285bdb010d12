"""How many trials share a GPU of a given memory."""

from __future__ import annotations

from typing import Any

import pytest

from muralab.config.commands import TuneConfig
from muralab.config.options import parse_options
from muralab.config.resources import Resources
from muralab.config.search import Machine, resolve_search
from muralab.errors import MemoryExceededError
from muralab.trial import TrialSpec
from muralab.tune.folders import Folders
from muralab.tune.gpu_packing import GIB, pack_gpus, share_of
from muralab.tune.plan import Sweep
from muralab.tune.preflight import Pace

CPUS, FREE_GIB = 16, 78.0


@pytest.fixture
def shared(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that packs a sweep onto GPUs of 78 GiB, and returns its resources and its trials."""
    monkeypatch.setattr(TuneConfig, "check", lambda *_: None)

    def share(
        each_gib: float, *, gpus: int = 1, n_trials: int = 40, memory: int = 10**12, others: int = 0, **texts: str
    ) -> tuple[Resources, tuple[TrialSpec, ...]]:
        machine = Machine(cpus=CPUS, gpus=gpus, memory_bytes=memory)
        machines = (machine, *[Machine(cpus=64, gpus=0, memory_bytes=10**12, name="cpu")] * others)
        options = parse_options(TuneConfig, texts)
        config = resolve_search(options, ("inception",), max_concurrent=options.max_concurrent, machines=machines)
        spec = TrialSpec(name="a-00", recipe="inception", table="", cache_folder="", folder="", threads=1, gpu=True)
        folders, dataset = Folders(cache=tmp_path, sweep=tmp_path), object()
        values = {"dataset": dataset, "weights": "", "inputs": None}
        sweep = Sweep(config=config, folders=folders, specs=(spec,) * n_trials, **values)  # type: ignore[arg-type]
        common = {"train_s": 1.0, "infer_s": 1.0, "frozen_upper": True, "weights_bytes": 1, "checkpoint_bytes": 5}
        paces = {"cnn": Pace(**common, gpu_bytes=GIB), "inception": Pace(**common, gpu_bytes=int(each_gib * GIB))}
        packed = pack_gpus(sweep, paces, machines=machines, free_bytes=int(FREE_GIB * GIB))
        return packed.config.resources, packed.specs

    return share


@pytest.mark.parametrize(
    ("each_gib", "gpus", "expected"),
    [(17.0, 1, (0.25, 4, 4)), (17.0, 2, (0.25, 2, 8)), (0.8, 1, (0.0625, 1, 16)), (90.0, 1, (1.0, 16, 1))],
)
def test_as_many_trials_share_a_gpu_as_its_memory_and_the_cores_hold(
    shared: Any, each_gib: float, gpus: int, expected: tuple[float, int, int]
) -> None:
    resources, specs = shared(each_gib, gpus=gpus, gpus_per_trial="pack")
    assert (resources.gpus_per_trial, resources.cpus_per_trial, resources.max_concurrent) == expected
    assert specs[0].threads == resources.cpus_per_trial


def test_the_users_cores_and_trials_hold_when_packed(shared: Any) -> None:
    resources, _ = shared(17.0, gpus_per_trial="pack", cpus_per_trial="2", max_concurrent="3")
    assert (resources.cpus_per_trial, resources.max_concurrent) == (2, 3)


@pytest.mark.parametrize("fields", [{"n_trials": 2}, {"max_concurrent": "2"}, {"memory": 6 * 10**9}])
def test_no_share_is_left_empty(shared: Any, fields: dict[str, Any]) -> None:
    resources, _ = shared(1.0, gpus_per_trial="pack", **fields)
    assert (resources.gpus_per_trial, resources.cpus_per_trial, resources.max_concurrent) == (0.5, 8, 2)


def test_nodes_without_a_gpu_do_not_count_when_packed(shared: Any) -> None:
    assert shared(1.0, gpus_per_trial="pack", others=2)[1] == shared(1.0, gpus_per_trial="pack")[1]
    resources, _ = shared(1.0, gpus_per_trial="pack", others=2)
    assert (resources.gpus_per_trial, resources.cpus_per_trial, resources.max_concurrent) == (0.0625, 1, 16)


def test_a_share_that_does_not_fit_into_memory_is_refused(shared: Any) -> None:
    message = (
        r"gpus_per_trial=0\.2: 5 trials would share .* 78\.0 GiB.*one of 'inception' takes 17\.0 GiB.*4 fit: give gpu"
    )
    with pytest.raises(MemoryExceededError, match=message):
        shared(17.0, gpus_per_trial="0.2")


@pytest.mark.parametrize("text", ["0.25", "0.5", "1", "auto", "0"])
def test_a_share_that_fits_is_kept(shared: Any, text: str) -> None:
    resources, _ = shared(17.0, gpus_per_trial=text)
    assert resources.gpus_per_trial == (1.0 if text == "auto" else float(text))


def test_trials_that_run_one_by_one_share_nothing(shared: Any) -> None:
    resources, _ = shared(60.0, gpus_per_trial="0.5", max_concurrent="1")
    assert resources.gpus_per_trial == 0.5


def test_shares_of_a_gpu_add_up_to_one_at_most() -> None:
    assert [share_of(number) for number in (1, 2, 3, 7)] == [1, 0.5, 0.3333, 0.1428]
