"""The ranking of labels: counted without names, written with names, and read back as label corrections."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from muralab.data.label_corrections import read_corrections
from muralab.data.names import code_names, new_key
from muralab.results.suspicious_labels import label_check, write_suspicious_labels

WRONG = "p003/s"
N = 20


@pytest.fixture
def index() -> pd.DataFrame:
    """Two images per study; every second study is abnormal."""
    names = [f"p{number:03d}" for number in range(N) for _ in "ab"]
    images = [f"{name}/{view}.png" for name, view in zip(names, "ab" * N)]
    studies = [f"{name}/s" for name in names]
    return pd.DataFrame({"image": images, "study": studies, "patient": names, "label": np.repeat(np.arange(N) % 2, 2)})


@pytest.fixture
def studies(index: pd.DataFrame) -> pd.DataFrame:
    """Answers that agree with the labels of all studies but one."""
    found = index.drop_duplicates("study").assign(set="test")
    sure = found["label"].to_numpy() * 0.8 + 0.1
    return found.assign(probability=np.where(found["study"] == WRONG, 0.02, sure))


def elsewhere(_: str) -> bool:
    return False


def test_suspicious_labels_are_counted_by_class(studies: pd.DataFrame) -> None:
    check = label_check(studies, 50)
    assert check is not None
    assert check.text.startswith("Of 20 studies (of 50 in the data set) that were answered by a network")
    assert "1 are answered confidently against their label" in check.text
    assert check.table.to_numpy().tolist() == [["normal", 10, 0], ["abnormal", 10, 1]]
    assert "is for a reader to say" in check.text
    assert label_check(studies[studies["label"] == 1], 50) is None


def test_answers_by_chance_say_nothing_about_labels(studies: pd.DataFrame) -> None:
    guessed = studies.assign(probability=np.random.default_rng(0).random(N))
    check = label_check(guessed, N)
    assert check is not None
    assert "better than chance is not shown, so they say nothing about labels" in check.text


def test_validation_studies_which_chose_the_model_do_not_count_for_it(studies: pd.DataFrame) -> None:
    guessed = studies.assign(probability=np.random.default_rng(0).random(N))
    flattered = studies.assign(set="validation", patient="v" + studies["patient"], study="v" + studies["study"])
    check = label_check(pd.concat([guessed, flattered], ignore_index=True), 2 * N)
    assert check is not None
    assert "better than chance is not shown" in check.text


def test_the_table_has_names_and_is_read_back_as_corrections(
    index: pd.DataFrame, studies: pd.DataFrame, tmp_path: Path
) -> None:
    key = new_key()
    coded = code_names(index, key, keep=True)
    (line,) = write_suspicious_labels(code_names(studies, key), coded, tmp_path, "run1")
    file = tmp_path / "labels" / "run1.csv"
    assert f"label_corrections={file}" in line
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    table = pd.read_csv(file, keep_default_na=False)
    assert table.loc[0, ["study", "label", "reader", "patient", "suspicious"]].tolist() == [WRONG, 1, "", "p003", True]
    assert table.loc[0, "views"] == "p003/a.png; p003/b.png"
    assert len(read_corrections(file, index, root=tmp_path, elsewhere=elsewhere).decided) == 0

    table.loc[0, ["label", "reader", "reason"]] = [0, "KM", "healed"]
    table.to_csv(file, index=False)
    found = read_corrections(file, index, root=tmp_path, elsewhere=elsewhere)
    assert found.decided.to_numpy().tolist() == [[WRONG, 1, 0, "KM", "healed"]]
    assert found.apply(index).query("study == @WRONG")["label"].tolist() == [0, 0]


def test_what_readers_decided_before_is_in_the_next_table(
    index: pd.DataFrame, studies: pd.DataFrame, tmp_path: Path
) -> None:
    read = tmp_path / "read.csv"
    read.write_text(f"study,label,reader,reason\n{WRONG},0,KM,healed\n")
    before = read_corrections(read, index, root=tmp_path, elsewhere=elsewhere)
    write_suspicious_labels(before.apply(studies), before.apply(index), tmp_path, "run2", before)
    table = pd.read_csv(tmp_path / "labels" / "run2.csv", keep_default_na=False).set_index("study")
    assert table.loc[WRONG, ["label", "reader", "reason"]].tolist() == [0, "KM", "healed"]
    again = read_corrections(tmp_path / "labels" / "run2.csv", index, root=tmp_path, elsewhere=elsewhere)
    assert again.decided.equals(before.decided)
