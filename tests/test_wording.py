"""Tests of the wording of results."""

from __future__ import annotations

from muralab.wording import counted, once

FEW = "7 patients with abnormal studies are too few for an interval (at least 10)"


def test_a_reason_is_given_the_first_time_alone() -> None:
    printed: set[str] = set()
    assert once(f"AUROC 0.6 [no interval: {FEW}]   kappa 0.1 [no interval: {FEW}]", printed) == (
        f"AUROC 0.6 [no interval: {FEW}]   kappa 0.1 [no interval]"
    )
    assert once(f"0.6 (no interval: {FEW}) and so on.", printed) == "0.6 (no interval) and so on."


def test_each_reason_is_given_once() -> None:
    printed = {FEW}
    assert once("0.1 [no interval: unknown], 0.2 [0.1, 0.3]", printed) == "0.1 [no interval: unknown], 0.2 [0.1, 0.3]"
    assert printed == {FEW, "unknown"}


def test_one_thing_is_not_called_several() -> None:
    assert [counted(number, "study", "studies") for number in (0, 1, 2000)] == ["0 studies", "1 study", "2,000 studies"]
