"""Sketches tell whether two sets of patients are mostly the same."""

from __future__ import annotations

import pytest

from muralab.tracking.patient_sketch import SKETCH_SIZE, is_mostly_the_same, sketch_patients


def sketch(first: int, last: int, kind: str = "patient") -> str:
    return sketch_patients(f"{kind}{number}" for number in range(first, last))


@pytest.mark.parametrize("n", [5, 40, 1000, 20_000])
@pytest.mark.parametrize(("share", "expected"), [(1.0, True), (0.75, True), (0.25, False), (0.0, False)])
def test_the_share_in_common_decides(n: int, share: float, expected: bool) -> None:
    """Two sets of `n` patients share `m`: of all in either that is m / (2n - m)."""
    in_common = round(2 * n * share / (1 + share))
    assert is_mostly_the_same(sketch(0, n), sketch(n - in_common, 2 * n - in_common)) == expected


def test_a_small_part_of_a_set_is_another_set() -> None:
    assert not is_mostly_the_same(sketch(0, 1000), sketch(0, 100))


def test_an_unknown_set_is_like_no_other() -> None:
    assert not is_mostly_the_same("", "")
    assert not is_mostly_the_same(sketch(0, 10), "")


def test_a_sketch_is_short_and_does_not_depend_on_order_or_repetition() -> None:
    assert sketch_patients(["b", "a", "b"]) == sketch_patients(["a", "b"])
    assert len(sketch(0, 100_000).split()) == SKETCH_SIZE
    assert len(sketch(0, 100_000)) < 500
