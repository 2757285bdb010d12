"""Files that readers get wrong are answered alike by pyfunc, MLflow's server, the app and `predict`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.pyfunc import scoring_server

from muralab.app.payload import CheckedRequest, Row
from muralab.app.scoring import answer
from muralab.commands import predict as predict_command
from muralab.config.commands import PredictConfig
from muralab.config.environment import Environment
from muralab.predict.engine import LocalEngine
from tests.fixtures.odd_files import odd_files

FILES = odd_files()
PLAIN = [odd.same_as or b"" for odd in FILES.values()]
PARAMS = {"policy": "partial"}
ONE_GREY_LEVEL = 8 / 255 / 4
"""The most that a probability of the tiny network changes with the mean grey by 1 of 255."""


def by_pyfunc(model: Any, contents: list[bytes]) -> pd.DataFrame:
    return pd.DataFrame(model.predict(pd.DataFrame({"image": contents}), params=PARAMS))


def by_mlflows_server(model: Any, contents: list[bytes]) -> pd.DataFrame:
    rows = [{"image": base64.b64encode(content).decode(), "study": None} for content in contents]
    body = json.dumps({"dataframe_records": rows, "params": PARAMS}).encode()
    found = scoring_server.invocations(body, "application/json", model, model.metadata.get_input_schema())
    return pd.DataFrame(json.loads(found.response)["predictions"])


def by_the_app(model: Any, contents: list[bytes]) -> pd.DataFrame:
    rows = [Row(image=base64.b64encode(content).decode(), study=None) for content in contents]
    return pd.DataFrame(json.loads(answer(model, CheckedRequest(rows=rows, params=PARAMS)))["predictions"])


def by_predict(model: Any, contents: list[bytes], folder: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    engine = LocalEngine.__new__(LocalEngine)
    engine.name, engine._model = "tiny", model
    monkeypatch.setattr(predict_command, "_build_engine", lambda *_: engine)
    names = [f"{number:03d}" for number in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    config = PredictConfig(images=folder, out=folder.parent / "answers.csv", study="file")
    predict_command.run(config, Environment(tracking_uri="sqlite:////none/m.db", cache=Path("/none")))
    return pd.read_csv(config.out, dtype={"image": str}).set_index("image").loc[names].reset_index()


def check(found: pd.DataFrame, plain: pd.DataFrame) -> None:
    for number, (kind, odd) in enumerate(FILES.items()):
        row = found.iloc[number]
        if odd.same_as is None:
            assert odd.says in str(row["error"]), kind
            assert pd.isna(row["probability"]), kind
        else:
            assert row["probability"] == pytest.approx(plain["probability"][number], abs=ONE_GREY_LEVEL), kind
            assert odd.says in str(row["warnings"]), kind


@pytest.mark.parametrize("door", [by_pyfunc, by_mlflows_server, by_the_app])
def test_odd_files_are_answered_as_plain_ones_or_refused(model: Any, door: Any) -> None:
    found = door(model, [odd.data for odd in FILES.values()])
    check(found, by_pyfunc(model, PLAIN))


def test_predict_answers_them_alike(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    found = by_predict(model, [odd.data for odd in FILES.values()], tmp_path / "files", monkeypatch)
    check(found, by_pyfunc(model, PLAIN))
