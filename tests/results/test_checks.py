"""The checks for shortcuts of a training: logged, read back, and worded by what they found."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from muralab.evaluation.metadata_baseline import fit_on_train, study_metadata
from muralab.report.sentences import with_bounds
from muralab.results.checks import (
    describe_metadata,
    explored_check,
    log_checks,
    metadata_check,
    read_checks,
    read_groups,
)
from muralab.tracking import RunWriter, Store, open_store, read_run
from tests.evaluation.test_metadata_baseline import images, measures
from tests.models import build_model


def found(**planted: object) -> str:
    table = images(120)
    check = explored_check(table.assign(split="train", part="wrist", path="x"), measures(table).assign(**planted))
    assert check is not None
    return check.text


def test_metadata_that_beat_chance_are_called_so() -> None:
    text = found(n_bytes=1000 + 500 * images(120)["label"])
    assert text.startswith("Without a single pixel, metadata reach an AUROC of ")
    assert "on the 120 studies (cross-validated by patient). Metadata beat chance: " in text
    assert text.endswith("The strongest by itself: file size, 1.000.")


def test_metadata_that_do_not_are_not() -> None:
    assert found().endswith("Metadata are not shown to beat chance.")


@pytest.mark.parametrize(("n_studies", "is_same"), [(40, True), (30, False)])
def test_a_model_is_compared_with_metadata_on_the_same_studies_only(n_studies: int, is_same: bool) -> None:
    table = images(80)
    studies = study_metadata(table, measures(table))
    baseline = fit_on_train(studies, table["study"].unique()[:n_studies].tolist())
    assert baseline is not None
    text = describe_metadata(baseline, "studies", model := build_model(skill=2.0)).text
    reached = f"{model.title} reaches {with_bounds(model.intervals()['auroc'])} there. "
    after = text.partition(reached)[2]
    assert after.startswith("Paired difference: " if is_same else "Metadata are not shown to beat chance.")


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> Store:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    return open_store(f"sqlite:///{tmp_path}/mlflow.db")


def test_checks_and_groups_are_read_back_from_a_run_and_from_the_sweep_above_it(store: Store) -> None:
    table = images(120)
    check = explored_check(table.assign(part="wrist"), measures(table))
    groups = pd.DataFrame({"study": ["s1"], "sex": ["F"]})
    assert check is not None
    with RunWriter(store) as writer:
        parent = writer.run_id(writer.start_run(kind="tune", name="t"))
        log_checks(writer, parent, [check], groups)
        child = writer.run_id(writer.start_run(kind="trial", name="c", parent=parent))
    for run in (parent, child):
        (read,) = read_checks(store, read_run(store, run))
        assert (read.name, read.title, read.text) == (check.name, check.title, check.text)
        pd.testing.assert_frame_equal(read.table, check.table)
        pd.testing.assert_frame_equal(read_groups(store, read_run(store, run)), groups)


def test_a_run_of_an_earlier_version_has_no_checks(store: Store) -> None:
    with RunWriter(store) as writer:
        run = writer.run_id(writer.start_run(kind="train", name="t"))
    assert (read_checks(store, read_run(store, run)), read_groups(store, read_run(store, run))) == ([], None)


@pytest.mark.parametrize("varies", [True, False])
def test_a_training_is_checked_on_its_test_studies_where_metadata_vary(varies: bool) -> None:
    table = images(120)
    size = 1000 + 500 * table["label"] if varies else 1000
    even = measures(table).assign(width=100, height=100, brightness=60, n_bytes=size)
    facts = pd.DataFrame(index=pd.Index(table["image"], name="image"))
    tables = {"train": table.assign(split="train")[:160], "test": table.assign(split="test")[160:]}
    dataset: Any = SimpleNamespace(tables=tables, facts=facts, audit=SimpleNamespace(measures=even))
    check = metadata_check(dataset, None)
    assert (check is not None) == varies
    assert check is None or "on the 40 test studies" in check.text
