"""The baseline from metadata alone: it finds planted shortcuts, and none where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.metadata_baseline import cross_validate, features_of, fit_on_train, study_metadata
from tests.models import build_model


def images(n_patients: int = 80, seed: int = 0, **columns: object) -> pd.DataFrame:
    """Two views of one study per patient; every second patient is abnormal, as in `tests.models`."""
    rows = [
        (f"valid/XR_WRIST/p{p:03d}/study1/image{v + 1}.png", f"valid/XR_WRIST/p{p:03d}/study1", f"p{p:03d}", p % 2)
        for p in range(n_patients)
        for v in range(2)
    ]
    return pd.DataFrame(rows, columns=["image", "study", "patient", "label"]).assign(**columns)


def measures(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sizes = {name: rng.integers(300, 600, len(table)) for name in ("width", "height", "n_bytes")}
    return pd.DataFrame({"image": table["image"], **sizes, "brightness": rng.normal(60, 9, len(table)), "spread": 20.0})


def test_a_planted_shortcut_is_found_and_named() -> None:
    table = images()
    facts = measures(table)
    facts["n_bytes"] = 1000 + 500 * table["label"] + np.arange(len(table))
    found = fit_on_train(study_metadata(table, facts), table["study"].unique()[40:].tolist())
    assert found is not None
    assert found.auroc.estimate > 0.95
    assert found.beats_chance
    assert found.table()["metadata"].tolist()[:2] == ["all together", "file size"]


def test_independent_metadata_do_not_beat_chance() -> None:
    table = images(120)
    found = [cross_validate(study_metadata(table, measures(table, seed))) for seed in range(4)]
    assert [one.beats_chance for one in found if one is not None].count(True) <= 1


@pytest.mark.parametrize("values", [["A", "B"], ["3", "7"]])
def test_a_column_of_the_data_set_counts(values: list[str]) -> None:
    table = images(site=[values[p // 2 % 2] for p in range(160)])
    found = cross_validate(study_metadata(table, measures(table), ["site"]))
    assert found is not None
    assert (found.alone["metadata"][0], found.alone["auroc"][0]) == ("site", 1.0)


def test_names_and_constants_are_no_features() -> None:
    table = images(reader="one", note=[f"text {n}" for n in range(160)])
    studies = study_metadata(table, measures(table), ["reader", "note"])
    assert {"reader", "note", "number of views", "spread of grey values"} & set(features_of(studies)) == set()


def test_a_missing_value_is_a_value_of_its_own() -> None:
    table = images(age=["" if p // 2 % 2 else "61" for p in range(160)])
    studies = study_metadata(table, measures(table), ["age"])
    assert studies["age"].isna().sum() == 40
    found = cross_validate(studies.assign(age=studies["age"] + np.arange(80) % 3))
    assert found is not None
    assert found.alone.set_index("metadata").loc["age", "auroc"] > 0.9


def test_the_difference_to_a_model_is_paired() -> None:
    table = images(40)
    everything = pd.concat([table, images(80).iloc[80:]], ignore_index=True)
    found = fit_on_train(study_metadata(everything, measures(everything)), table["study"].unique().tolist())
    assert found is not None
    difference = found.difference_to(build_model(skill=2.0))
    assert difference is not None
    expected = build_model(skill=2.0).intervals()["auroc"].estimate - found.auroc.estimate
    assert difference.estimate == pytest.approx(expected)


def test_one_class_gives_no_baseline() -> None:
    table = images().assign(label=1)
    assert cross_validate(study_metadata(table, measures(table))) is None
    assert fit_on_train(study_metadata(table, measures(table)), table["study"].unique()[:20].tolist()) is None
