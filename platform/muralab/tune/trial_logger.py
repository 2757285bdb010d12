"""What the search tells, written where it belongs: MLflow, the terminal, and the disk's retention of checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muralab.console import Board
from muralab.data.dataset import Dataset
from muralab.experiment import predictions_path
from muralab.recipe import resolved_values
from muralab.recipe_loader import read_source
from muralab.tracking import RunWriter, read_predictions
from muralab.tracking.tags import Tag
from muralab.training.phases import PHASES
from muralab.training.trainer import LAST, best_name
from muralab.trial import TrialSpec, recipes_of

SUMMARISED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_study_auroc")


def trial_tags(spec: TrialSpec, facts: Mapping[str, str]) -> dict[str, str]:
    """The tags of a trial's run: its sweep's facts, and its own."""
    return {**facts, Tag.RECIPE: spec.recipe, Tag.TRIAL: spec.name}


def log_data(writer: RunWriter, run: str, dataset: Dataset) -> None:
    """Log the three sets as inputs of a run, each with a digest of all its rows and all its files' bytes."""
    contexts = {"train": "training", "validation": "validation", "test": "test"}
    for row in dataset.counts().to_dict("records"):
        name = str(row["set"])
        writer.log_dataset(
            run,
            name=f"{'synthetic-' if dataset.synthetic else ''}mura-{dataset.part}-{name}",
            digest=dataset.digest(name),
            source=str(dataset.root),
            context=contexts[name],
            profile={key: row[key] for key in ("images", "studies", "patients", "abnormal")},
            columns={"image": "string", "study": "string", "patient": "string", "part": "string", "label": "long"},
        )


def log_audit(writer: RunWriter, run: str, dataset: Dataset) -> None:
    """Log what the audit of the data set found."""
    found = dataset.audit
    writer.log_text(run, found.paragraph(), "audit.md")
    writer.log_table(run, found.table(), "audit.csv")


def log_description(writer: RunWriter, run: str, spec: TrialSpec) -> None:
    """Log what a trial is: every resolved value, and its recipe's source."""
    _, recipe = recipes_of(spec)
    values = {**resolved_values(recipe), "recipe": spec.recipe, "seed": spec.seed}
    writer.log_resolved(run, {**values, "weights": spec.weights or "random", "threads": spec.threads})
    writer.log_text(run, read_source(spec.recipe), f"recipe/{spec.recipe.rsplit('.', 1)[-1]}.py")


def phase_summary(history: list[Mapping[str, Any]], objective: str) -> dict[str, float]:
    """`upper_*` and `full_*`: what each phase's best epoch, the one whose weights are kept, reached."""
    summary: dict[str, float] = {}
    for number, phase in enumerate(PHASES, start=1):
        epochs = [row for row in history if row["phase"] == number]
        if epochs:
            best = max(epochs, key=lambda row: _comparable(row[objective]))
            summary |= {f"{phase}_{name}": best[name] for name in SUMMARISED}
            summary |= {f"{phase}_epochs": float(len(epochs)), "objective": best[objective]}
    return summary


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


@dataclass
class Logbook:
    """The search's listener; every call comes from the driver's main thread."""

    writer: RunWriter
    board: Board
    specs: Mapping[str, TrialSpec]
    dataset: Dataset
    parent: str
    facts: Mapping[str, str]
    """Tags that all runs of the sweep share."""
    runs: dict[str, str] = field(default_factory=dict)
    """Trial -> the run that was started or resumed."""
    history: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    best: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Recipe -> (objective, trial) of the best trial that has ended."""
    resume: str = ""
    """The command that goes on with the sweep, where one does."""
    said: bool = False
    """Whether that command was shown."""
    keep_all: bool = False
    """Whether every trial keeps its weights, and not the best of each recipe alone."""
    deadline: float | None = None
    """On the monotonic clock: a trial that ends unfinished after it ran out of time, and was not pruned."""

    def trial_started(self, name: str) -> None:
        """Start the trial's run, unless it goes on with one."""
        self.board.started(name)
        if name not in self.runs:
            spec = self.specs[name]
            run = self.writer.start_run(kind="trial", name=name, tags=trial_tags(spec, self.facts), parent=self.parent)
            self.runs[name] = run
            log_description(self.writer, run, spec)
            log_data(self.writer, run, self.dataset)
        self.history.setdefault(name, [])

    def trial_epoch(self, name: str, epoch: Mapping[str, Any]) -> None:
        """Log an epoch; one that a restarted trial repeats is there already."""
        if epoch["global_epoch"] <= len(self.history[name]):
            return
        self.history[name].append(epoch["metrics"])
        self.writer.log_epoch(self.runs[name], epoch["global_epoch"], epoch["metrics"])
        seconds = epoch["metrics"]["epoch_seconds"]
        self.board.epoch(name, epoch["global_epoch"], epoch["phase"], epoch["objective"], seconds)

    def trial_ended(self, name: str, how: str, reason: str) -> None:
        """Log how a trial ended and what it reached; keep only the weights that may still be needed."""
        if how == "pruned" and self.deadline is not None and time.monotonic() >= self.deadline:
            how = "stopped"
        if name not in self.runs:
            self.trial_started(name)
        run, spec = self.runs[name], self.specs[name]
        self.board.ended(name, how, reason)
        summary = phase_summary(self.history[name], spec.objective)
        if summary:
            self.writer.log_epoch(run, len(self.history[name]), summary)
        self.writer.set_tags(run, {Tag.ENDED: how, **({Tag.ERROR: reason} if reason else {})})
        for phase in reversed(PHASES):
            path = predictions_path(spec.folder, phase)
            if path.exists():
                self.writer.log_predictions(run, "validation", read_predictions(path))
                break
        if how == "failed":
            self.failures[name] = reason
        elif any(row["phase"] == len(PHASES) for row in self.history[name]):
            self.consider(name, summary["objective"])
        if how != "failed":  # a resumed sweep tries a failed trial again, from its checkpoint
            (Path(spec.folder) / LAST).unlink(missing_ok=True)
        self.writer.finish(run, "FAILED" if how == "failed" else "FINISHED")

    def stop_running(self) -> None:
        """The search is over: what still runs was stopped by the time budget, and Tune does not say so."""
        for name, row in self.board.rows.items():
            if row.state == "running":
                self.trial_ended(name, "stopped", "")

    def consider(self, name: str, objective: float) -> None:
        """A trial that has ended may be its recipe's best; the loser's weights are removed.

        Of two that are level the earlier one of the plan wins, whichever ended first: a resumed sweep hears of them in
        another order, and must not remove the weights that the first one kept.
        """
        recipe, places = self.specs[name].recipe, list(self.specs)
        held = self.best.get(recipe)
        if held is None or (_comparable(objective), -places.index(name)) > (
            _comparable(held[0]),
            -places.index(held[1]),
        ):
            self.best[recipe] = (objective, name)
            loser = held[1] if held else None
        else:
            loser = name
        if loser is not None and not self.keep_all:
            for phase in PHASES:
                (Path(self.specs[loser].folder) / best_name(phase)).unlink(missing_ok=True)

    def tick(self) -> None:
        """Redraw."""
        self.board.tick()

    def interrupted(self) -> None:
        """Say how to go on, and close the runs, before anything else is taken down: that may go wrong."""
        self.say_how_to_go_on("Interrupted. Go on with it by:")
        self.writer.end_open_runs("KILLED")

    def say_how_to_go_on(self, why: str) -> None:
        """Show the command that goes on with the sweep, once, where one does."""
        if self.resume and not self.said:
            self.said = True
            with contextlib.suppress(OSError):  # nobody reads a lost terminal; what was said must not stop the closing
                self.board.console.print(f"\n{why}\n  {self.resume}", highlight=False, markup=False, soft_wrap=True)
