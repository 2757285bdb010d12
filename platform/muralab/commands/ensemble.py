"""`train ensemble=5`: five networks, each validated on a different fifth of the training patients, as one model.

The networks are trained in child runs of one run (`folds`), which then becomes the run of a trained model: the mean of
their logits, with calibration and threshold fitted on the answers that each patient got from the network that was
validated on them. It is evaluated on the test set once, and `evaluate`, `report` and `promote` take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from muralab.commands.session import Session
from muralab.data.names import with_real_names
from muralab.errors import StoreError
from muralab.evaluation.calibration import fit_calibration
from muralab.evaluation.evaluated_model import MIXED_PHASES, EvaluatedModel, TrainingRecord
from muralab.evaluation.metrics import main_metrics
from muralab.results.final_test import FinalTest, image_metrics, log_test
from muralab.results.inputs import log_audit, log_sets, log_split
from muralab.results.trained_model import load_trained_model
from muralab.tracking import RunRecord, fingerprint_test_set, read_run
from muralab.tracking.tags import Tag
from muralab.training.checkpoint import write_tensors
from muralab.training.ensemble import average_networks
from muralab.tune.plan import Sweep
from muralab.tune.trial_logger import log_description, trial_tags


def build_ensemble(session: Session, parent: str, sweep: Sweep, members: Sequence[EvaluatedModel]) -> FinalTest:
    """Average the networks of an ensemble, test it, and log it in the run above theirs.

    Args:
        session: of the command.
        parent: that run.
        sweep: one training on the same data with the usual split, for its description.
        members: the tested networks, one per fold.

    Raises:
        StoreError: a network's weights or predictions cannot be read.
    """
    session.writer.flush()
    records = [read_run(session.store, member.run_id) for member in members]
    network = average_networks([load_trained_model(session.store, record).network for record in records])
    validation = pd.concat([record.predictions["validation"] for record in records]).sort_values("image")
    test = average_predictions([record.predictions["test"] for record in records])
    model = EvaluatedModel(
        recipe=members[0].recipe,
        title=f"{members[0].title}, {len(members)} networks",
        run_id=parent,
        validation=validation.reset_index(drop=True),
        test=test,
        calibration=fit_calibration(validation, rule=sweep.config.options.threshold),
        objective=float(np.mean([member.objective for member in members])),
        training=TrainingRecord(values=records[0].values, summary=image_metrics(test)),
    )
    describe(session, parent, sweep, records)
    session.writer.log_predictions(parent, "validation", model.predictions("validation"))
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        write_tensors(weights, network.state_dict(), {"recipe": model.recipe, "run_id": parent})
        session.writer.log_file(parent, weights, "weights")
        session.writer.flush()
    fingerprint = fingerprint_test_set(with_real_names(test, sweep.dataset.index))
    log_test(session.writer, parent, model, fingerprint)
    session.writer.log_epoch(parent, 0, member_metrics(members) | {"objective": model.objective})
    session.writer.set_tags(parent, {Tag.BEST_OF_RECIPE: "true", Tag.KEPT_PHASE: kept_phase(records)})
    session.print("", *gain_lines(model, members))
    return FinalTest(spec=sweep.specs[0], network=network.eval(), model=model, fingerprint=fingerprint)


def kept_phase(networks: Sequence[RunRecord]) -> str:
    """The phase whose weights all networks kept, or that they differ in it."""
    phases = {record.tags.get(Tag.KEPT_PHASE, "full") for record in networks}
    return phases.pop() if len(phases) == 1 else MIXED_PHASES


def average_predictions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of the same images by several networks, with the mean of their logits.

    Raises:
        StoreError: they are of other images.
    """
    first = tables[0].sort_values("image", ignore_index=True)
    logits = []
    for table in tables:
        own = table.sort_values("image", ignore_index=True)
        if not own["image"].equals(first["image"]):
            raise StoreError(
                "The networks of this ensemble were evaluated on different test images: the data changed between them. "
                "Start a new ensemble with the current data."
            )
        logits.append(own["logit"].to_numpy(np.float64))
    return first.assign(logit=np.mean(logits, axis=0))


def describe(session: Session, parent: str, sweep: Sweep, records: Sequence[RunRecord]) -> None:
    """Log recipe, data and split as the run of a single network does.

    In the split, every patient outside the test set is a training patient: most of the networks were trained on them.
    """
    spec = sweep.specs[0]
    tags = {**trial_tags(spec, sweep.tags), Tag.ENSEMBLE: str(len(records))}
    session.writer.set_tags(parent, tags)
    log_description(session.writer, parent, spec)
    log_sets(session.writer, parent, sweep.dataset)
    log_split(session.writer, parent, sweep.dataset, is_ensemble=True)
    log_audit(session.writer, parent, sweep.dataset)


def member_metrics(members: Sequence[EvaluatedModel]) -> dict[str, float]:
    """The mean of the networks' own test figures, to compare the ensemble with."""
    return {
        f"members_mean_study_{name}": float(np.mean([member.intervals()[name].estimate for member in members]))
        for name in main_metrics()
    }


def gain_lines(model: EvaluatedModel, members: Sequence[EvaluatedModel]) -> list[str]:
    """What averaging has gained on the test set, and what it costs."""
    lines = [f"Ensemble of {len(members)} networks, test set, study level; its networks alone:"]
    for name in main_metrics():
        each = [member.intervals()[name].estimate for member in members]
        lines.append(
            f"  {name} {model.intervals()[name]}; alone {', '.join(f'{value:.3f}' for value in each)}, mean "
            f"{np.mean(each):.3f}"
        )
    return [*lines, f"Inference takes {len(members)} times the time and memory of one network."]
