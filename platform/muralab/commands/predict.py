"""The command `predict`: find pictures, ask in batches, write one table; a picture without an answer has a reason."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.app.token import read_token_file
from muralab.console import build_console, build_progress
from muralab.errors import DataError, MuraLabError, ServerError, SettingsError, numbered
from muralab.predict.engine import Engine, LocalEngine, Row, ServerEngine, is_missing
from muralab.predict.pictures import Item, build_batches, find_pictures, spell
from muralab.serving.config import DISCLAIMER, MAX_ROWS

ANSWERS = ("probability", "study_probability", "abnormal", "uncertain", "threshold", "model_version", "warnings")
COLUMNS = ("image", "study", *ANSWERS, "error")
SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """What the command was asked; paths are absolute."""

    images: Path
    out: Path
    """A .csv or .parquet file."""
    model: str = "models:/mura-wrist@champion"
    url: str | None = None
    """A server that is asked in the model's place."""
    token_file: Path | None = None
    """Holds the server's bearer token."""
    study: str = "folder"
    """What makes a study: "folder" or "file"."""
    rows: int = 16
    """Pictures a request; a study is never split."""
    threshold: float | None = None
    """None: the model's own."""
    tracking_uri: str
    run_id: str | None = None
    """The run that `mlflow run` has made for this command."""


def run_predict(request: PredictRequest) -> pd.DataFrame:
    """Answer for every picture and write the table.

    Returns:
        A row a picture with `COLUMNS`; `error` says why a picture has no answer.

    Raises:
        MuraLabError: nothing to read, nobody to answer, or not one picture that could be read.
    """
    _check(request)
    console = build_console()
    items = find_pictures(request.images, study=request.study)
    batches = build_batches(items, rows=request.rows)
    if all(len(batch) > MAX_ROWS for batch in batches):
        raise DataError(_too_many(batches[0]))
    n_studies = len({item.study for item in items})
    engine = _build_engine(request)
    console.print(f"{len(items):,} pictures of {n_studies:,} studies; {engine.name} answers.", highlight=False)
    params = {"policy": "partial"} | ({} if request.threshold is None else {"threshold": request.threshold})
    table, failure = _answer_all(engine, batches, params, build_progress(console)("pictures answered"))
    if table["error"].notna().all():
        raise failure or _nothing_read(table, request.images)
    _write(table, request.out)
    if request.run_id:
        _log(table, request, engine)
    console.print(_summary(table, request.out), highlight=False, markup=False, soft_wrap=True)
    if failure:
        raise ServerError(f"{failure} What was answered before that is in {request.out}.")
    return table


def _check(request: PredictRequest) -> None:
    if request.out.suffix.lower() not in SUFFIXES:
        raise SettingsError(f"out={request.out}: expected a name that ends in .csv or .parquet.")
    if not request.out.parent.is_dir():
        raise SettingsError(f"out={request.out}: the folder {request.out.parent} does not exist.")
    if request.out.is_dir() or not os.access(request.out.parent, os.W_OK):
        raise SettingsError(f"out={request.out} is a folder, or lies in one that may not be written to.")
    if not 1 <= request.rows <= MAX_ROWS:
        raise SettingsError(f"rows={request.rows}: expected 1 to {MAX_ROWS} pictures a request.")
    if request.threshold is not None and not 0 <= request.threshold <= 1:
        raise SettingsError(f"threshold={request.threshold}: expected a number from 0 to 1.")


def _build_engine(request: PredictRequest) -> Engine:
    if request.url is None:
        return LocalEngine(request.model, request.tracking_uri)
    token = None if request.token_file is None else read_token_file(request.token_file)
    return ServerEngine(request.url, token)


def _answer_all(
    engine: Engine, batches: list[list[Item]], params: dict[str, Any], tell: Callable[[int, int], None]
) -> tuple[pd.DataFrame, MuraLabError | None]:
    """All rows; and what ended the work early, if something did."""
    rows: list[Row] = []
    failure: MuraLabError | None = None
    total = sum(len(batch) for batch in batches)
    for batch in batches:
        if failure is None:
            try:
                rows += _answer_batch(engine, batch, params)
            except ServerError as error:
                failure = error
        if failure is not None:
            rows += [_failed(item, "not asked: the server stopped answering") for item in batch]
        tell(len(rows), total)
    return pd.DataFrame(rows, columns=list(COLUMNS)), failure


def _answer_batch(engine: Engine, batch: list[Item], params: dict[str, Any]) -> list[Row]:
    if len(batch) > MAX_ROWS:
        return [_failed(item, _too_many(batch)) for item in batch]
    read = [_read(item) for item in batch]
    if all(isinstance(text, OSError) for text in read):
        return [_failed(item, text) for item, text in zip(batch, read)]
    # A file that cannot be read is a view of its study all the same: the other views get their warning of it.
    asked = [{"image": text if isinstance(text, str) else "", "study": item.study} for item, text in zip(batch, read)]
    try:
        answers = engine.answer(asked, params)
    except DataError as error:
        return [_failed(item, text if isinstance(text, OSError) else error) for item, text in zip(batch, read)]
    return [
        _build_row(item, answer) if isinstance(text, str) else _failed(item, text)
        for item, text, answer in zip(batch, read, answers, strict=True)
    ]


def _too_many(batch: list[Item]) -> str:
    return (
        f"The folder {batch[0].study} holds {len(batch)} pictures, and a study has at most {MAX_ROWS} views. "
        "If each picture is a study of its own, say study=file; else give each study a folder."
    )


def _read(item: Item) -> str | OSError:
    try:
        return base64.b64encode(item.path.read_bytes()).decode("ascii")
    except OSError as error:
        return error


def _failed(item: Item, reason: object) -> Row:
    text = (reason.strerror or str(reason)) if isinstance(reason, OSError) else str(reason)
    return {"image": item.name, "study": item.study, "error": text}


def _build_row(item: Item, answer: Row) -> Row:
    found = {key: None if is_missing(answer.get(key)) else answer[key] for key in (*ANSWERS, "error")}
    return {"image": item.name, "study": item.study, **found, "warnings": "; ".join(answer.get("warnings") or [])}


def _nothing_read(table: pd.DataFrame, images: Path) -> DataError:
    problems = [f"{image}: {error}" for image, error in zip(table["image"], table["error"])]
    return DataError(numbered(f"None of the {len(table)} pictures of {images} could be answered:", problems))


def _write(table: pd.DataFrame, out: Path) -> None:
    """Whole or not at all."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        if out.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False)
        else:
            typed = {"abnormal": "boolean", "uncertain": "boolean", "probability": float, "study_probability": float}
            with temporary.open("wb") as file:  # by itself pyarrow opens no name of other bytes than UTF-8
                table.astype(typed).to_parquet(file, index=False)
        temporary.replace(out)
    except OSError as error:
        raise SettingsError(f"out={out} cannot be written ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def _summary(table: pd.DataFrame, out: Path) -> str:
    good = table[table["error"].isna()]
    studies = good.drop_duplicates("study")
    lines = [
        f"{len(studies):,} studies answered, {int(studies['abnormal'].sum()):,} of them called abnormal and "
        f"{int(studies['uncertain'].sum()):,} uncertain; the table is {spell(out)}."
    ]
    bad = table[table["error"].notna()]
    if len(bad):
        problems = [f"{image}: {error}" for image, error in zip(bad["image"], bad["error"])]
        lines.append(numbered(f"Warning: {len(bad):,} of {len(table):,} pictures have no answer:", problems))
    return "\n".join([*lines, DISCLAIMER])


def _log(table: pd.DataFrame, request: PredictRequest, engine: Engine) -> None:
    from muralab.tracking import RunWriter, open_store
    from muralab.tracking.tags import Tag

    versions = sorted({str(version) for version in table["model_version"].dropna()})
    with RunWriter(open_store(request.tracking_uri)) as writer:
        facts = {Tag.ANSWERED_BY: engine.name, Tag.MODEL_VERSION: ", ".join(versions)}
        run = writer.adopt_run(str(request.run_id), facts, kind="predict")
        counts = {"pictures": len(table), "unanswered": int(table["error"].notna().sum())}
        writer.log_epoch(run, 0, {**counts, "studies": table["study"].nunique()})
        writer.log_table(run, table, "predictions.csv")
        writer.finish(run)
