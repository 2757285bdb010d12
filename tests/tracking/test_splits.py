"""Tests of the split tables that runs log."""

from __future__ import annotations

import pandas as pd
import pytest

from muralab.tracking import RunWriter, Store, start_run
from muralab.tracking.splits import SPLIT_TABLE, read_split_table


def log_split(store: Store, rows: list[tuple[str, str, str]]) -> str:
    run_id = start_run(store, kind="tune", name="search")
    with RunWriter(store) as writer:
        writer.log_table(run_id, pd.DataFrame(rows, columns=["image", "patient", "set"]), SPLIT_TABLE)
    return run_id


def test_names_that_look_like_missing_values_or_numbers_stay_names(local: Store) -> None:
    rows = [("a.png", "NA", "train"), ("b.png", "null", "train"), ("c.png", "007", "test")]
    found = read_split_table(local, log_split(local, rows))
    assert found is not None
    assert list(found.itertuples(index=False, name=None)) == rows


@pytest.mark.parametrize(("trained", "is_read"), [(True, False), (False, True)])
def test_a_table_without_training_images_is_that_of_an_evaluation(local: Store, trained: bool, is_read: bool) -> None:
    run_id = log_split(local, [("a.png", "p1", "test")])
    assert (read_split_table(local, run_id, trained=trained) is not None) == is_read


def test_a_run_without_a_table_has_none(local: Store) -> None:
    assert read_split_table(local, start_run(local, kind="tune", name="search")) is None
    assert read_split_table(local, "0" * 32) is None
