"""The executor's own Ray: what it is started with."""

from __future__ import annotations

import os

import pytest

from muralab.config.resources import Resources
from muralab.tune import executor


def test_ray_is_given_a_token_so_that_it_writes_none_into_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(os, "environ", {"PYTHONPATH": ""})
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    tokens = []
    monkeypatch.setattr(ray, "init", lambda **_: tokens.append(os.environ["RAY_AUTH_TOKEN"]))
    resources = Resources(cpus=1, gpus=0, cpus_per_trial=1, gpus_per_trial=0, max_concurrent=1)
    with executor._cluster(resources):
        pass
    assert len(tokens[0]) == 32
