"""`predict`: its table, its warnings, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from muralab.commands.predict import COLUMNS, run
from muralab.config.environment import Environment
from muralab.errors import DataError, ServerError, SettingsError
from tests.fixtures.documented import undocumented
from tests.fixtures.payloads import encode_dicom
from tests.predict.conftest import write_picture

SOURCES = [str(Path(__file__).parents[2] / "platform"), str(Path(__file__).parents[2])]


def predict(config, **environment):
    """Run the command outside of `mlflow run` unless the environment says otherwise."""
    given = {"tracking_uri": "sqlite:////none/m.db", "cache": Path("/none")}
    return run(config, Environment(**given | environment))


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    for name in ("s1/1.png", "s1/2.png", "s2/1.png"):
        write_picture(folder / name)
    return folder


def test_one_row_per_image_is_written(ask, engine, pictures):
    table = predict(ask())
    stored = pd.read_csv(ask().out)
    assert tuple(stored.columns) == COLUMNS
    assert list(stored["image"]) == ["s1/1.png", "s1/2.png", "s2/1.png"]
    assert stored["warnings"].unique() == ["single view"]
    assert table["error"].isna().all()


def test_parquet_keeps_types(ask, engine, pictures, tmp_path):
    (pictures / "s2/bad.png").write_bytes(b"text")
    predict(ask(out=tmp_path / "out.parquet"))
    stored = pd.read_parquet(tmp_path / "out.parquet")
    assert stored["probability"].dtype == float
    assert stored["abnormal"].tolist()[:3] == [True] * 3
    assert stored["abnormal"].isna().sum() == 1


def test_requests_hold_whole_studies_and_ask_for_partial_answers(ask, engine, pictures):
    predict(ask(rows=2, threshold=0.3))
    assert [[row["study"] for row in rows] for rows in engine.requests] == [["s1", "s1"], ["s2"]]
    assert engine.params == {"policy": "partial", "threshold": 0.3}


def test_a_prevalence_reaches_the_model_and_the_table(ask, engine, pictures):
    table = predict(ask(prevalence=0.1))
    assert engine.params == {"policy": "partial", "prevalence": 0.1}
    assert table["prevalence"].tolist() == [0.1] * 3


def test_a_model_that_ignores_the_prevalence_is_refused(ask, engine, pictures):
    engine.knows_prevalence = False
    assert predict(ask())["error"].isna().all()
    with pytest.raises(DataError, match=r"prevalence=0\.1: this model was registered by an earlier version"):
        predict(ask(prevalence=0.1))


def test_bad_files_are_rows_with_a_reason_and_a_warning(ask, engine, pictures, capsys):
    (pictures / "s1/3.png").write_bytes(b"text")
    (pictures / "s1/4.png").symlink_to("nowhere")
    table = predict(ask()).set_index("image")
    assert table.loc["s1/3.png", "error"] == "not a picture"
    assert table.loc["s1/4.png", "error"] == "No such file or directory"
    assert "Warning: 2 of 5 images have no answer" in capsys.readouterr().out


def test_an_unreadable_view_counts_in_its_study(ask, engine, pictures):
    (pictures / "s1/3.png").symlink_to("nowhere")
    predict(ask())
    assert [(row["study"], bool(row["image"])) for row in engine.requests[0]] == [
        ("s1", True),
        ("s1", True),
        ("s1", False),
        ("s2", True),
    ]


def test_too_many_images_are_not_a_study_and_stop_no_other(ask, engine, pictures):
    for number in range(65):
        write_picture(pictures / f"heap/{number}.png")
    table = predict(ask())
    assert table.groupby("study")["error"].count().to_dict() == {"heap": 65, "s1": 0, "s2": 0}
    assert "holds 65 images, and a study has at most 64 views" in table["error"].dropna().iloc[0]


def test_nothing_but_too_many_images_is_refused_at_once(ask, engine, tmp_path):
    for number in range(65):
        write_picture(tmp_path / f"pictures/heap/{number}.png")
    with pytest.raises(DataError, match=r"holds 65 images.*give study=file"):
        predict(ask())
    assert engine.requests == []


def test_an_unwritable_target_is_refused_before_anything_is_sent(ask, engine, pictures, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SettingsError, match=r"folder\.csv is a folder, or lies in one"):
        predict(ask(out=tmp_path / "folder.csv"))
    assert engine.requests == []


def test_an_unwritable_folder_is_refused_before_anything_is_sent(ask, engine, pictures, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(SettingsError, match="lies in one that is not writable"):
        predict(ask())
    assert engine.requests == []


@pytest.mark.parametrize("suffix", [b".csv", b".parquet"])
def test_a_table_may_have_a_name_of_other_bytes_than_utf8(ask, engine, pictures, tmp_path, capsys, suffix):
    out = tmp_path / os.fsdecode(b"o\xff" + suffix)
    predict(ask(out=out))
    assert out.is_file()
    assert "o\\xff" in capsys.readouterr().out


def test_a_token_file_of_two_lines_is_refused(ask, pictures, tmp_path):
    (tmp_path / "token").write_text("one\ntwo\n")
    with pytest.raises(SettingsError, match="expected one word, such as"):
        predict(ask(url="http://127.0.0.1:1", token_file=tmp_path / "token"))


def test_a_refused_request_does_not_stop_the_others(ask, engine, pictures, refusal):
    engine.failing[1] = refusal
    table = predict(ask(rows=2))
    assert table["error"].tolist()[:2] == ["Too large a request."] * 2
    assert table["error"].isna().sum() == 1


def test_a_server_that_stops_leaves_what_was_answered(ask, engine, pictures):
    engine.failing[2] = ServerError("The server is gone.")
    with pytest.raises(ServerError, match=r"The server is gone\. What was answered before that is in .*out\.csv"):
        predict(ask(rows=2))
    assert pd.read_csv(ask().out)["error"].isna().tolist() == [True, True, False]


def test_nothing_readable_is_an_error_and_writes_nothing(ask, engine, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"None of the 1 images (?s:.*)a\.png: not a picture"):
        predict(ask())
    assert not ask().out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": Path("/tmp/table.xls")}, "ends in .csv or .parquet"),
        ({"out": Path("/no/such/folder/t.csv")}, "the folder /no/such/folder does not exist"),
        ({"rows": 65}, "rows=65: expected 1 to 64"),
    ],
)
def test_impossible_options_are_refused(ask, engine, pictures, changes, message):
    with pytest.raises(SettingsError, match=message):
        predict(ask(**changes))


@pytest.mark.slow
def test_under_mlflow_run_its_run_holds_the_table(ask, engine, pictures, store_uri):
    from muralab.tracking import open_store, read_run, start_run

    store = open_store(store_uri)
    run_id = start_run(store, experiment="lab", kind="tune", name="from mlflow run")
    predict(ask(), tracking_uri=store_uri, run_id=run_id)
    record = read_run(store, run_id)
    assert (record.kind, record.status, record.metrics["pictures"]) == ("predict", "FINISHED", 3)
    assert record.tags["muralab.model_version"] == "tiny/1"
    assert undocumented(store, run_id) == []


@pytest.mark.slow
def test_a_models_own_code_answers_in_the_command(pictures, onnx_file, tmp_path):
    from muralab.registry.bundle import write_bundle
    from muralab.serving.config import ServingConfig

    write_bundle(tmp_path / "model", onnx_file, ServingConfig(image_size=32))
    changed = tmp_path / "model/code/muralab/serving/answer.py"
    changed.write_text(changed.read_text().replace('"single view"', '"lonely view"'))
    where = ["--images", str(pictures), "--out", str(tmp_path / "o.csv"), "--model", str(tmp_path / "model")]
    done = subprocess.run(
        [sys.executable, "-m", "muralab", "predict", *where],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}, cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "o.csv")["warnings"].tolist()[2] == "lonely view"


def test_files_that_are_no_images_are_listed_with_their_reason(ask, engine, pictures, capsys):
    (pictures / "s1/notes.txt").write_text("words")
    table = predict(ask())
    stored = pd.read_csv(ask().out)
    assert list(stored["image"]) == ["s1/1.png", "s1/2.png", "s2/1.png", "s1/notes.txt"]
    assert stored["unused"].tolist()[3] == "not a picture (text)"
    assert stored["unused"].isna().tolist() == [True, True, True, False]
    assert table["error"].isna().all()
    out = capsys.readouterr().out
    assert "1 files found in" in out
    assert "s1/notes.txt: not a picture (text)" in out
    assert "2 studies answered" in out
    assert len(engine.requests) == 1


def test_unused_files_keep_the_types_of_a_parquet_table(ask, engine, pictures, tmp_path):
    (pictures / "s1/notes.txt").write_text("words")
    predict(ask(out=tmp_path / "out.parquet"))
    stored = pd.read_parquet(tmp_path / "out.parquet")
    assert stored["probability"].dtype == float
    assert stored["abnormal"].tolist()[:3] == [True] * 3
    assert stored["abnormal"].isna().sum() == 1


def test_an_export_is_answered_by_its_headers(ask, engine, pictures):
    grey = np.random.default_rng(0).integers(0, 256, (4, 20, 20), dtype=np.uint8)
    keys = (("1.2", "a"), ("1.2", "a"), ("", "b"), ("", "c"))
    for number, (uid, patient) in enumerate(keys):
        folder = pictures / f"export/SE{number}"
        folder.mkdir(parents=True)
        data = encode_dicom(grey[number], StudyInstanceUID=uid, PatientID=patient)
        (folder / "IM1").write_bytes(data)
    table = predict(ask(images=pictures / "export"))
    studies = table.set_index("image")["study"]
    assert studies["SE0/IM1"] == studies["SE1/IM1"]
    assert studies.nunique() == 3


def test_a_flat_folder_is_refused_before_a_model_is_loaded(ask, engine, pictures):
    with pytest.raises(DataError, match="2 pictures lie directly in"):
        predict(ask(images=pictures / "s1"))
    assert engine.requests == []
