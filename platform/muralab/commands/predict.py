"""`predict`: find images, ask a model or a server in batches, write one table; what has no answer has a reason."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.app.token import read_token_file
from muralab.commands.keepalive import Keepalive
from muralab.commands.out_table import check_out, write_table
from muralab.commands.session import create_journal, open_own_store, report_refusals
from muralab.config.commands import PredictConfig
from muralab.config.environment import Environment
from muralab.console import build_console, build_progress
from muralab.data.name_keys import NAMES_FOLDER, find_key
from muralab.data.names import NameKey, code_names
from muralab.data.scan import Unused, spell, unused_note
from muralab.errors import DataError, MuraLabError, ServerError, SettingsError, numbered
from muralab.predict.engine import Engine, LocalEngine, Row, ServerEngine, is_missing
from muralab.predict.item import Item
from muralab.predict.pictures import build_batches, find_pictures
from muralab.serving.config import DISCLAIMER, MAX_ROWS
from muralab.tracking import RunWriter, claim_run, open_store
from muralab.tracking.projects import take_run
from muralab.tracking.runs import DEFAULT_EXPERIMENT
from muralab.tracking.tags import Tag
from muralab.wording import counted

ANSWERS = (
    "probability",
    "study_probability",
    "abnormal",
    "uncertain",
    "threshold",
    "prevalence",
    "model_version",
    "warnings",
)
COLUMNS = ("image", "study", *ANSWERS, "error", "unused")
NOTABLE = (
    "unlike the training images",
    "the file names another body part",
    "colour photo, not a radiograph",
    "blank picture",
)
"""Beginnings of warnings that are counted in the terminal: the model answers, and should not be believed."""


def run(config: PredictConfig, environment: Environment) -> pd.DataFrame:
    """Answer for every image and write the table.

    Returns:
        One row per file with `COLUMNS`: `error` says why an image has no answer, `unused` why a file is not
        one; those come last.

    Raises:
        MuraLabError: nothing to read, no model or server, or no readable image.
    """
    _check(config)
    if environment.run_id:
        store, environment = open_own_store(environment)
        if environment.run_id:
            claim_run(store, environment.run_id)
    console = build_console()
    with Keepalive(console):
        return _predict(config, environment, console)


def _predict(config: PredictConfig, environment: Environment, console: Any) -> pd.DataFrame:
    show = build_progress(console)
    found = find_pictures(config.images, study=config.study, progress=show("opening files"))
    items = found.items
    batches = build_batches(items, rows=config.rows)
    if all(len(batch) > MAX_ROWS for batch in batches):
        raise DataError(_too_many(batches[0]))
    n_studies = len({item.study for item in items})
    engine = _build_engine(config, environment)
    console.print(
        f"{counted(len(items), 'image', 'images')} of {counted(n_studies, 'study', 'studies')}; {engine.name} answers.",
        highlight=False,
    )
    for note in [*found.notes, *unused_note(found.unused, str(config.images))]:
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    wanted = {"threshold": config.threshold, "prevalence": config.prevalence}
    params = {"policy": "partial"} | {name: value for name, value in wanted.items() if value is not None}
    table, failure = _answer_all(engine, batches, params, show("answering images"))
    if table["error"].notna().all():
        raise failure or _nothing_read(table, config.images)
    table = _add_unused(table, found.unused)
    _write(table, config.out)
    if environment.run_id:
        _log(table, config.images, environment, engine)
    console.print(_summary(table, config.out), highlight=False, markup=False, soft_wrap=True)
    if failure:
        raise ServerError(f"{failure} What was answered before that is in {config.out}.")
    return table


def _check(config: PredictConfig) -> None:
    check_out(config.out)
    if config.rows > MAX_ROWS:
        raise SettingsError(f"rows={config.rows}: expected 1 to {MAX_ROWS} images per request.")


def _build_engine(config: PredictConfig, environment: Environment) -> Engine:
    if config.url is None:
        return LocalEngine(config.model, environment.tracking_uri, environment.registry_uri)
    token = None if config.token_file is None else read_token_file(config.token_file)
    return ServerEngine(config.url, token)


def _answer_all(
    engine: Engine, batches: list[list[Item]], params: dict[str, Any], show: Callable[[int, int], None]
) -> tuple[pd.DataFrame, MuraLabError | None]:
    """All rows, and what ended the work early, if anything did."""
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
        show(len(rows), total)
    return pd.DataFrame(rows, columns=list(COLUMNS)), failure


def _answer_batch(engine: Engine, batch: list[Item], params: dict[str, Any]) -> list[Row]:
    if len(batch) > MAX_ROWS:
        return [_failed(item, _too_many(batch)) for item in batch]
    read = [_read(item) for item in batch]
    if all(isinstance(text, OSError) for text in read):
        return [_failed(item, text) for item, text in zip(batch, read)]
    # An unreadable file is still a view of its study: the other views get a warning about it.
    asked = [{"image": text if isinstance(text, str) else "", "study": item.study} for item, text in zip(batch, read)]
    try:
        answers = engine.answer(asked, params)
        _check_prevalence(answers, params)
    except DataError as error:
        return [_failed(item, text if isinstance(text, OSError) else error) for item, text in zip(batch, read)]
    return [
        _build_row(item, answer) if isinstance(text, str) else _failed(item, text)
        for item, text, answer in zip(batch, read, answers, strict=True)
    ]


def _check_prevalence(answers: list[Row], params: dict[str, Any]) -> None:
    """Refuse answers of a model that ignored the prevalence: MLflow drops parameters that a model does not know."""
    if "prevalence" in params and any(is_missing(answer.get("prevalence")) for answer in answers):
        raise DataError(
            f"prevalence={params['prevalence']:g}: this model was registered by an earlier version, which cannot shift "
            "its probabilities. Omit prevalence, or train and register the model again."
        )


def _too_many(batch: list[Item]) -> str:
    return (
        f"The study {batch[0].study} holds {len(batch)} images, and a study has at most {MAX_ROWS} views. "
        "If each image is a study of its own, give study=file; otherwise give each study a folder."
    )


def _read(item: Item) -> str | OSError:
    try:
        return base64.b64encode(item.path.read_bytes()).decode("ascii")
    except OSError as error:
        return error


def _add_unused(table: pd.DataFrame, unused: Sequence[Unused]) -> pd.DataFrame:
    """The table, followed by the files that are not images."""
    if not unused:
        return table
    rows = [{"image": spell(one.name), "unused": one.text} for one in unused]
    listed = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    return pd.concat([table.astype(object), listed], ignore_index=True)


def _failed(item: Item, reason: object) -> Row:
    text = (reason.strerror or str(reason)) if isinstance(reason, OSError) else str(reason)
    return {"image": item.name, "study": item.study, "error": text}


def _build_row(item: Item, answer: Row) -> Row:
    found = {key: None if is_missing(answer.get(key)) else answer[key] for key in (*ANSWERS, "error")}
    return {"image": item.name, "study": item.study, **found, "warnings": "; ".join(answer.get("warnings") or [])}


def _nothing_read(table: pd.DataFrame, images: Path) -> DataError:
    problems = [f"{image}: {error}" for image, error in zip(table["image"], table["error"])]
    return DataError(numbered(f"None of the {len(table)} images of {images} could be answered:", problems))


def _write(table: pd.DataFrame, out: Path) -> None:
    """Write the table; in Parquet its columns have types, also where none of their cells is filled."""
    typed = {
        "abnormal": "boolean",
        "uncertain": "boolean",
        "probability": float,
        "study_probability": float,
        "prevalence": float,
        "unused": "string",
    }
    write_table(table if out.suffix.lower() == ".csv" else table.astype(typed), out)


def _summary(table: pd.DataFrame, out: Path) -> str:
    asked = table[table["unused"].isna()]
    good = asked[asked["error"].isna()]
    studies = good.drop_duplicates("study")
    n_uncertain = int(studies["uncertain"].sum())  # a model that was calibrated on few studies calls none so
    lines = [
        f"{counted(len(studies), 'study', 'studies')} answered, {int(studies['abnormal'].sum()):,} of them called "
        f"abnormal{f' and {n_uncertain:,} uncertain' if n_uncertain else ''}; the table is {spell(out)}."
    ]
    bad = asked[asked["error"].notna()]
    if len(bad):
        problems = [f"{image}: {error}" for image, error in zip(bad["image"], bad["error"])]
        lines.append(numbered(f"Warning: {len(bad):,} of {len(asked):,} images have no answer:", problems))
    return "\n".join([*lines, *_notable(good), DISCLAIMER])


def _notable(good: pd.DataFrame) -> list[str]:
    """How many images the model warns about in a way that makes its answer doubtful, one line per kind."""
    counts = {kind: int(good["warnings"].fillna("").str.contains(kind, regex=False).sum()) for kind in NOTABLE}
    return [
        f"Warning: {count:,} of {len(good):,} images: {kind}. The column warnings says which."
        for kind, count in counts.items()
        if count
    ]


def _experiment_of(versions: list[str]) -> str:
    """That of the part that a registered model answers for; a model folder names none."""
    name = versions[0].partition("/")[0] if versions else ""
    return name if name.startswith("mura-") else DEFAULT_EXPERIMENT


def _log(table: pd.DataFrame, images: Path, environment: Environment, engine: Engine) -> None:
    """Log the table with codes instead of names; the file that the user asked for has the names."""
    versions = sorted({str(version) for version in table["model_version"].dropna()})
    key = find_key(environment.cache / NAMES_FOLDER, images)
    store = open_store(environment.tracking_uri)
    journal = create_journal(environment, store, "predict")
    with RunWriter(store, journal=journal, on_refused=lambda refusals: report_refusals(refusals, journal)) as writer:
        run = take_run(
            store,
            writer,
            given=environment.run_id,
            experiment=_experiment_of(versions),
            is_chosen=environment.experiment is not None,
            kind="predict",
            name=f"predict {len(table)} image{'s' * (len(table) > 1)}",
            tags={Tag.ANSWERED_BY: engine.name, Tag.MODEL_VERSION: ", ".join(versions), Tag.NAMES: key.id},
        )
        n_unused = int(table["unused"].notna().sum())
        n_unanswered = int(table["error"].notna().sum())
        counts = {"pictures": len(table) - n_unused, "unanswered": n_unanswered, "unused": n_unused}
        writer.log_epoch(run, 0, {**counts, "studies": table["study"].nunique()})
        writer.log_table(run, code_answers(table, key), "predictions.csv")
        writer.finish(run)


def code_answers(table: pd.DataFrame, key: NameKey) -> pd.DataFrame:
    """The table with codes instead of the names of images and studies, also in its reasons."""
    errors = [
        reason if is_missing(reason) else key.hide(str(reason), [("image", image), ("study", study)])
        for reason, image, study in zip(table["error"], table["image"], table["study"])
    ]
    return code_names(table.assign(error=pd.Series(errors, index=table.index, dtype=object)), key)
