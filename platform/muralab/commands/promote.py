"""`promote`: a trained run or a registered version goes through the gate to the alias `champion`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from muralab.commands.evaluate import load_model, trained_run
from muralab.console import build_console
from muralab.data.images.files import read_square
from muralab.errors import SettingsError, StoreError
from muralab.evaluation.bootstrap import bootstrap
from muralab.registry import Margins, Promotion, RegisteredModel, promote_version, register_model
from muralab.registry.promote import read_version, version_of_run
from muralab.report import model_card
from muralab.results.final_test import WITH_INTERVALS
from muralab.results.from_mlflow import read_context, read_entry
from muralab.tracking import RunRecord, RunWriter, Store, close_dead_runs, open_store, read_datasets
from muralab.tracking.tags import Tag
from muralab.tune.prepare import Job

COPIED_TAGS = ("part", "synthetic", "seed", "split_fingerprint", "protocol", "objective", "weights", "recipe")
N_VERIFIED = 32


def run_promote(
    part: str, job: Job, *, run: str | None = None, version: str | None = None, margins: Margins, dry_run: bool = False
) -> Promotion:
    """Decide whether a model becomes the champion of its part; print and write down why.

    Args:
        part: which registered model, mura-<part>.
        job: where this command runs.
        run: a trained run; it is registered first if it is not. One of `evaluate` stands for the run that it judged.
        version: of the registered model; one of the two must be given.
        margins: of the gate.
        dry_run: decide, and change nothing.

    Raises:
        MuraLabError: what a user can mend: an unknown run or version, a run that met no test set.
    """
    if (run is None) == (version is None):
        raise SettingsError("promote needs one of run=<id of a trained run> and version=<number>.")
    if not re.fullmatch(r"[\w .-]+", part):  # it goes into a filter of the store
        raise SettingsError(f"part={part}: expected a body part, such as wrist, or `all`.")
    console = build_console()
    store = open_store(job.tracking_uri)
    close_dead_runs(store, claim=job.run_id)
    name = f"mura-{part}"
    if version:
        chosen = str(read_version(store, name, version).version)
    else:
        record = trained_run(store, str(run), predictions=True)
        if record.run_id != run:
            line = f"The run {run} judged the model of {record.run_id} again: that one is taken, with its own test set."
            console.print(line, highlight=False, soft_wrap=True)
        chosen = _version_of(store, name, part, record, dry_run)
    done = promote_version(store, name, chosen, cache=job.cache, margins=margins, dry_run=dry_run)
    for line in done.lines():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if dry_run:
        look = " The look at the test set that judging again took is counted above, and recorded nowhere."
        console.print(f"dry_run: nothing was changed.{look if done.reevaluated is not None else ''}", soft_wrap=True)
    else:
        _log(store, job, done)
        console.print(f"It is served as {done.uri}.", highlight=False)
    return done


def _version_of(store: Store, name: str, part: str, record: RunRecord, dry_run: bool) -> str:
    """The version of a run, made where there is none."""
    run = record.run_id
    if record.part != part:
        raise SettingsError(f"The run {run} is of part={record.part or 'none'}, not of part={part}.")
    if "test" not in record.predictions:
        raise StoreError(
            f"The run {run} ({record.kind}, {record.name}) holds no test predictions, so the gate cannot judge it. Of "
            "a sweep, the best trial of each recipe holds them; for another recipe or its other values, use `train`."
        )
    known = version_of_run(store, name, run)
    if known is not None:
        return str(known.version)
    if dry_run:
        raise SettingsError(f"The run {run} is not registered yet, and dry_run=true registers nothing.")
    return register_run(store, record, name).version


def register_run(store: Store, record: RunRecord, name: str) -> RegisteredModel:
    """A trained run that kept its weights becomes a version without an alias.

    Raises:
        StoreError: the run keeps no weights, or its pictures are not on this machine.
    """
    network, recipe, calibration = load_model(store, record)
    entry = read_entry(store, record)
    intervals = bootstrap(
        record.predictions["test"],
        level="study",
        metrics=WITH_INTERVALS,
        threshold=calibration.threshold,
        temperature=calibration.study_temperature,
    )
    tags = {f"muralab.{key}": record.tags.get(f"muralab.{key}", "") for key in COPIED_TAGS}
    return register_model(
        network=network,
        image_size=recipe.image_size,
        calibration=calibration.to_dict(),
        name=name,
        run_id=record.run_id,
        card=model_card(entry, read_context(store, [record])),
        tags={**tags, **{f"muralab.test_study_{key}": str(interval) for key, interval in intervals.items()}},
        verify_images=_pictures(store, record, recipe.image_size),
        alias=None,
        tracking_uri=store.uri,
    )


def _pictures(store: Store, record: RunRecord, size: int) -> np.ndarray:
    """Validation pictures of a run, uint8 [N, size, size]."""
    source: Any = read_datasets(store, record.run_id).get("validation")
    if source is None or "validation" not in record.predictions:
        raise StoreError(f"The run {record.run_id} names no validation pictures to check the export on.")
    images = record.predictions["validation"]["image"]
    chosen = images.iloc[np.linspace(0, len(images) - 1, min(N_VERIFIED, len(images))).astype(int)]
    paths = [Path(source.source) / image for image in chosen]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise StoreError(
            f"The pictures of the run {record.run_id} are not on this machine (such as {missing[0]}), and a model is "
            "registered only after its export was checked on them. Promote it where its data are."
        )
    return np.stack([read_square(path, size) for path in paths])


def _log(store: Store, job: Job, done: Promotion) -> None:
    tags = {
        Tag.PART: done.name.removeprefix("mura-"),
        Tag.REGISTERED: f"{done.name}/{done.version}",
        Tag.GATE: "accepted" if done.decision.accepted else "refused",
        Tag.GATE_REASONS: " ".join(done.decision.reasons),
    }
    with RunWriter(store) as writer:
        if job.run_id:
            run = writer.adopt_run(job.run_id, tags, kind="promote")
        else:
            run = writer.start_run(
                experiment=job.experiment or done.name, kind="promote", name=f"promote-{done.version}", tags=tags
            )
        if done.reevaluated is not None:
            writer.log_predictions(run, "test", done.reevaluated)
        writer.finish(run)
