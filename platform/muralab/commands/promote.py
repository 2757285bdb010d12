"""`promote`: a trained run or a registered version goes through the gate to the alias `champion`."""

from __future__ import annotations

from muralab.commands.session import Session, open_session
from muralab.config.commands import PromoteConfig
from muralab.config.environment import Environment
from muralab.config.training_options import AUTO
from muralab.errors import SettingsError, StoreError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.metrics import main_metrics
from muralab.registry.evaluation_count import record_evaluations
from muralab.registry.gate import Margins
from muralab.registry.promote import Promotion, promote_version, read_version, version_of_run
from muralab.registry.register import RegisteredModel, register_model
from muralab.report.card import model_card
from muralab.report.sentences import calibration_notes
from muralab.results.changes import changes_since_evaluation
from muralab.results.from_mlflow import read_context, read_model
from muralab.results.trained_model import (
    engine_test,
    familiar_images,
    load_trained_model,
    trained_run,
    verification_images,
)
from muralab.serving.engine import EXACT, FAST
from muralab.tracking import RunRecord, Store, read_run, read_tags
from muralab.tracking.tags import Tag

COPIED_TAGS = (
    Tag.PART,
    Tag.SYNTHETIC,
    Tag.SEED,
    Tag.SPLIT_FINGERPRINT,
    Tag.NAMES,
    Tag.PROTOCOL,
    Tag.VALUE_RANGE,
    Tag.OBJECTIVE,
    Tag.WEIGHTS,
    Tag.RECIPE,
    Tag.KEPT_PHASE,
    Tag.CONTENT,
    Tag.RECIPE_CODE,
    Tag.PLATFORM,
    Tag.PLATFORM_CODE,
    Tag.ACCEPTED_CHANGES,
)
"""Of a run, copied to the version that is registered from it."""


def run(config: PromoteConfig, environment: Environment) -> None:
    """Decide whether a model becomes the champion of its part; print and log why.

    Raises:
        MuraLabError: an unknown run or version, or a run that was not tested.
    """
    with open_session("promote", environment) as session:
        name = f"mura-{config.part}"
        if not config.dry_run:
            session.require_access(config.part, registers=True)
        version, candidate = find_version(config, name, session)
        margins = Margins(objective=config.margin)
        done = promote_version(
            session.store,
            name,
            version,
            candidate=candidate,
            cache=session.cache,
            margins=margins,
            dry_run=config.dry_run,
        )
        session.print(*done.lines())
        if config.dry_run:
            counted = " The re-evaluation on the test set is counted above, and recorded nowhere."
            session.print(f"dry_run: nothing was changed.{counted if done.reevaluated is not None else ''}")
            session.close_own_run("promote, dry run", "\n\n".join([*done.lines(), "dry_run: nothing was changed."]))
        else:
            log_promotion(session, config.part, done)
            session.writer.flush()
            record_evaluations(session.store, name, done.fingerprint)
            session.print(f"It is served as {done.uri}.")


def find_version(config: PromoteConfig, name: str, session: Session) -> tuple[str, EvaluatedModel | None]:
    """The version that is meant, registered where there is none, and its model where a run was given."""
    if config.version is not None:
        found = read_version(session.store, name, config.version)
        if read_tags(session.store, found.run_id):  # a version outlives its run
            session.warn(
                changes_since_evaluation(session.store, [read_run(session.store, found.run_id)], session.cache)
            )
        return str(found.version), None
    record = trained_run(session.store, str(config.run), predictions=True)
    if record.run_id != config.run:
        session.print(
            f"The run {config.run} evaluated the model of {record.run_id}: that run is taken, with its own test set."
        )
    check_run(record, config.part)
    model = read_model(session.store, record)
    session.warn([*calibration_notes([model]), *changes_since_evaluation(session.store, [record], session.cache)])
    known = version_of_run(session.store, name, record.run_id)
    if known is not None and config.engine in (AUTO, known.tags.get(Tag.ENGINE, EXACT)):
        return str(known.version), model
    if config.dry_run:
        with_engine = "" if known is None else f" with engine={config.engine}"
        raise SettingsError(
            f"The run {record.run_id} is not registered{with_engine} yet, and dry_run=true registers nothing."
        )
    if config.engine == FAST:
        session.print("Building the fast engine and comparing it with the exact one on the test studies.")
    made = register_run(session.store, record, model, name, fast=config.engine == FAST, required=known is not None)
    session.print(*filter(None, [made.engine]))
    return made.version, model


def check_run(record: RunRecord, part: str) -> None:
    """Refuse a run of another part, or one that was not tested.

    Raises:
        SettingsError: it is of another part.
        StoreError: it holds no test predictions.
    """
    if record.part != part:
        raise SettingsError(f"The run {record.run_id} is of part={record.part or 'none'}, not of part={part}.")
    if "test" not in record.predictions:
        raise StoreError(
            f"The run {record.run_id} ({record.kind}, {record.name}) holds no test predictions, so the gate cannot "
            "evaluate it. In a sweep, the best trial of each recipe holds them; for another recipe or other values, "
            "use `train`."
        )


def register_run(
    store: Store, record: RunRecord, model: EvaluatedModel, name: str, *, fast: bool = False, required: bool = False
) -> RegisteredModel:
    """Register the model of a tested run.

    Args:
        store: holds the run.
        record: the run.
        model: its evaluation.
        name: of the registered model.
        fast: whether to add a fast engine, if it is as good.
        required: whether the run is registered with the fast engine only.

    Raises:
        StoreError: the run keeps no weights, or its validation or test images are not on this machine.
        FastEngineRefusedError: a required fast engine is not as good.
    """
    trained = load_trained_model(store, record)
    figures = {f"{Tag.TEST_STUDY_PREFIX}{metric}": str(model.intervals()[metric]) for metric in main_metrics()}
    return register_model(
        network=trained.network,
        image_size=trained.recipe.image_size,
        calibration=trained.calibration.to_dict(),
        name=name,
        run_id=record.run_id,
        card=model_card(model, read_context(store, [record])),
        tags={**{tag: record.tags[tag] for tag in COPIED_TAGS if tag in record.tags}, **figures},
        verify_images=verification_images(store, record, trained.recipe.image_size),
        familiar=familiar_images(store, record, trained.recipe.image_size),
        fast=engine_test(store, record, model, trained.recipe.image_size, required=required) if fast else None,
        alias=None,
        store=store,
    )


def log_promotion(session: Session, part: str, done: Promotion) -> None:
    """Log the gate's decision in a run of its own."""
    tags = {
        Tag.PART: part,
        Tag.REGISTERED: f"{done.name}/{done.version}",
        Tag.GATE: "accepted" if done.decision.accepted else "refused",
        Tag.GATE_REASONS: " ".join(done.decision.reasons),
        Tag.NOTE: "\n\n".join(done.lines()),
    }
    run_id = session.start_run(name=f"promote {done.name} version {done.version}", part=part, tags=tags)
    if done.reevaluated is not None:
        session.writer.log_predictions(run_id, "test", done.reevaluated)
        session.writer.set_tags(run_id, {Tag.TEST_FINGERPRINT: done.fingerprint})  # also where it was a part of the set
    session.writer.finish(run_id)
