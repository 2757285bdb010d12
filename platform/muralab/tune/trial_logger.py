"""Listens to the trials of a search: logs them to MLflow, shows them, keeps the weights that may be needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from muralab.console import TrialTable
from muralab.data.dataset import Dataset
from muralab.errors import StorageError
from muralab.experiment import predictions_path
from muralab.heartbeat import HEARTBEAT
from muralab.recipe import resolved_values
from muralab.results.inputs import log_sets
from muralab.results.run_recipe import log_source
from muralab.search_space import Value
from muralab.tracking import RunRecord, RunWriter, read_predictions
from muralab.tracking.tags import Tag
from muralab.training.phases import PHASES
from muralab.training.trainer import LAST, PREVIOUS, best_name
from muralab.trial import TrialSpec, recipes_of, uses_bfloat16
from muralab.tune.live_progress import LiveProgress
from muralab.tune.resume import has_weights
from muralab.tune.scheduler import Past
from muralab.tune.sweep_storage import SweepStorage
from muralab.tune.trial_ending import TrialEnding, read_ending, write_ending
from muralab.tune.trial_names import searched_keys, trial_title
from muralab.tune.trial_notes import ended_note, running_note
from muralab.tune.trial_score import comparable, objectives_of, score_trial

ENDED = ("finished", "pruned", "stopped")
"""How a trial ends that is not tried again when its search is resumed."""


def trial_tags(spec: TrialSpec, tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a trial's run: its search's, and its own."""
    return {**tags, Tag.RECIPE: spec.recipe, Tag.TRIAL: spec.name}


def log_description(writer: RunWriter, run: str, spec: TrialSpec, searched: Sequence[str] = ()) -> None:
    """Log what a trial is: every value, and its recipe's source.

    Searched values are params under their own names, all others stand apart from them as `resolved.<key>`.
    """
    values = resolved_values(recipes_of(spec)[1])
    fixed = {key: value for key, value in values.items() if key not in searched}
    facts = {"recipe": spec.recipe, "seed": spec.seed, "weights": spec.weights or "random", "threads": spec.threads}
    facts["precision"] = "bfloat16" if uses_bfloat16(spec) else "float32"
    writer.log_params(run, {key: values[key] for key in searched})
    writer.log_resolved(run, fixed | facts)
    log_source(writer, run, spec.recipe)


def relog_changed(writer: RunWriter, record: RunRecord, spec: TrialSpec, dataset: Dataset) -> None:
    """Log the recipe and the pictures with which a resumed training continues, where they are not those of its run."""
    if record.tags.get(Tag.RECIPE_CODE, spec.recipe_code) != spec.recipe_code:
        log_source(writer, record.run_id, spec.recipe)
    if record.tags.get(Tag.CONTENT, spec.content) != spec.content:
        log_sets(writer, record.run_id, dataset)
        writer.set_tags(record.run_id, {Tag.CONTENT: spec.content})


@dataclass
class TrialLogger:
    """The executor's listener; every call comes from the driver's main thread."""

    writer: RunWriter
    table: TrialTable
    specs: Mapping[str, TrialSpec]
    dataset: Dataset
    parent: str
    """The search's own run."""
    tags: Mapping[str, str]
    """Of every run of the search."""
    on_interrupt: Callable[[], None] = lambda: None
    """Called at Ctrl-C when no trial runs any more."""
    on_adapted: Callable[[str, int | None], None] = lambda *_: None
    """Called when Ray was started again; with the number of trials at once where that fell."""
    on_chosen: Callable[[str, Mapping[str, Value]], None] = lambda *_: None
    """Called with the values that were chosen for a trial, before it starts."""
    keep_all: bool = False
    """Whether every trial keeps its weights, and not only the best of each recipe."""
    runs: dict[str, str] = field(default_factory=dict)
    """Trial -> its run, started or resumed."""
    history: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Trial -> why it failed."""
    diverged: set[str] = field(default_factory=set)
    """Those that failed because their loss was not finite: another try would end in the same way."""
    notes: list[str] = field(default_factory=list)
    """What happened to the search, for the report."""
    best: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Recipe -> (objective, trial) of the best trial that has ended."""
    removed: dict[str, float] = field(default_factory=dict)
    """Trial -> objective of one that ended before an interruption and whose weights are gone, as a loser's are."""
    scores: dict[str, float] = field(default_factory=dict)
    """Trial -> what one that has ended in order has reached."""
    _parts: dict[str, int] = field(default_factory=dict)
    _searched: dict[str, list[str]] = field(default_factory=dict)
    deadline: float | None = None
    """On the monotonic clock: a trial that ends unfinished after it ran out of time, and was not pruned."""
    storage: SweepStorage | None = None
    """Where trials leave their files that do not run in the search's own folders; None: all do."""
    progress: LiveProgress | None = None
    """Keeps the search's own run up to date; None: nothing does."""

    def searched(self, recipe: str) -> list[str]:
        """The values that the trials of a recipe draw."""
        if recipe not in self._searched:  # asked for several times per trial, of which there may be thousands
            self._searched[recipe] = searched_keys(self.specs.values(), recipe)
        return self._searched[recipe]

    def restore(self, records: Sequence[RunRecord]) -> dict[str, Past]:
        """Restore what an interrupted search has done; returns the objectives of trials that have ended."""
        past: dict[str, Past] = {}
        stored = set() if self.storage is None else self.storage.trials()
        found = {record.tags.get(Tag.TRIAL, ""): record for record in records}
        for name, spec in self.specs.items():
            record, ending = found.get(name), read_ending(Path(spec.folder))
            if record is not None:
                self.runs[name] = record.run_id
            if record is not None and record.tags.get(Tag.ENDED) in ENDED:
                if name in stored and ending is None:  # it ended on another machine
                    self._fetch_ended(name, record)
                past[name] = self._restore_ended(name, record)
            elif ending is not None:
                past[name] = self._finish_logging(name, record, ending)
            elif record is not None:  # it may end well this time: why it failed before is not how it ended
                self._reopen(name, record)
        return past

    def _fetch_ended(self, name: str, record: RunRecord) -> None:
        """Fetch the weights and predictions of a trial's last logged epoch: its training may have been ahead of it."""
        if self.storage is not None and len(record.history):
            self.storage.fetch_ended(name, int(record.history.index.max()))

    def _restore_ended(self, name: str, record: RunRecord) -> Past:
        """A trial that has ended; what an interruption has kept from being written about its end is written now."""
        spec = self.specs[name]
        self.table.change(name, record.tags[Tag.ENDED]).best = record.metrics.get("objective")
        if "objective" in record.metrics:
            self.scores[name] = record.metrics["objective"]
        objectives = _full_objectives(record, spec.objective)
        if record.status != "FINISHED":
            self._reopen(name, record)
            self._log_predictions(name, record.tags.get(Tag.KEPT_PHASE, "full"))
            self.writer.finish(record.run_id)
        if objectives and (has_weights(spec) or record.tags.get(Tag.BEST_OF_RECIPE) == "true"):  # its run has them
            self.consider(name, record.metrics["objective"])
        elif objectives:
            self.removed[name] = record.metrics["objective"]
        return record.recipe, objectives

    def _finish_logging(self, name: str, record: RunRecord | None, ending: TrialEnding) -> Past:
        """A trial that has ended on disk: the store gets all that it lacks, and nothing twice."""
        if record is not None:
            self._reopen(name, record)
        self.trial_started(name)
        self.history[name] = history = list(ending.history)
        for step, metrics in enumerate(history, start=1):
            self.writer.log_epoch(self.runs[name], step, {**objectives_of(history[:step], self.specs[name]), **metrics})
        self.table.ended(name, ending.how)
        self._log_end(name, ending.how, "")
        objective = self.specs[name].objective
        full = [float(row[objective]) for row in ending.history if row["phase"] == len(PHASES)]
        return self.specs[name].recipe, full

    def _reopen(self, name: str, record: RunRecord) -> None:
        """Go on writing a run; one that was interrupted while it was described is described again."""
        cleared = {Tag.ERROR: ""} if record.tags.get(Tag.ERROR) else {}
        accepted = {key: self.tags[key] for key in (Tag.ACCEPTED_CHANGES,) if key in self.tags}
        self.writer.resume_run(record.run_id, cleared | accepted)
        if Tag.DESCRIBED in record.tags or accepted:
            relog_changed(self.writer, record, self.specs[name], self.dataset)
        else:
            self._describe(name)

    def _describe(self, name: str) -> None:
        run = self.runs[name]
        log_description(self.writer, run, self.specs[name], self.searched(self.specs[name].recipe))
        log_sets(self.writer, run, self.dataset)
        self.writer.set_tags(run, {Tag.DESCRIBED: "true"})

    def trial_chosen(self, name: str, values: Mapping[str, Value]) -> None:
        """Keep the values that were chosen for a trial, seconds before its process is ready to train with them."""
        self.on_chosen(name, values)
        self.specs = {**self.specs, name: replace(self.specs[name], drawn=values)}

    def trial_started(self, name: str) -> None:
        """Start the trial's run, unless it is resumed."""
        self.require_owner()
        self.table.started(name)
        if name not in self.runs:
            spec = self.specs[name]
            searched, tags = self.searched(spec.recipe), trial_tags(spec, self.tags)
            tags[Tag.NOTE] = running_note(spec, searched)
            title = trial_title(spec, searched)
            self.runs[name] = self.writer.start_run(kind="trial", name=title, tags=tags, parent=self.parent)
            self._describe(name)
        self.history.setdefault(name, [])

    def trial_placed(self, name: str, node: str) -> None:
        """Show where the trial runs, and keep it in its run."""
        self.table.placed(name, node)
        self.writer.set_tags(self.runs[name], {Tag.NODE: node})

    def trial_epoch(self, name: str, epoch: Mapping[str, Any]) -> None:
        """Log an epoch; one that a restarted trial repeats is logged already."""
        self.require_owner()
        if epoch["global_epoch"] <= len(self.history[name]):
            return
        self.history[name].append(epoch["metrics"])
        metrics = objectives_of(self.history[name], self.specs[name]) | epoch["metrics"]
        self.writer.log_epoch(self.runs[name], epoch["global_epoch"], metrics)
        self._note_parts(name, int(epoch["metrics"].get("batch_parts", 1)))
        seconds = epoch["metrics"]["epoch_seconds"]
        self.table.epoch(name, epoch["global_epoch"], epoch["phase"], epoch["objective"], seconds)
        if self.progress is not None:
            self.progress.tick()

    def _note_parts(self, name: str, parts: int) -> None:
        """Say once in the run that batches did not fit into the GPU's memory; the metric has its epoch."""
        if parts > self._parts.get(name, 1):
            self._parts[name] = parts
            note = (
                f"{name}: a batch did not fit into the GPU's memory and is computed in {parts} parts, whose gradients "
                "are added up; BatchNorm's statistics are those of the parts."
            )
            self.writer.set_tags(self.runs[name], {Tag.MEMORY: note})
            self.adapted(note)

    def trial_ended(self, name: str, how: str, reason: str, *, diverged: bool = False) -> None:
        """Log how a trial ended and what it reached; keep only the weights that may still be needed."""
        self.require_owner()
        reason = self.dataset.hide_names(reason)
        if how == "pruned" and self.deadline is not None and time.monotonic() >= self.deadline:
            how = "stopped"
        if name not in self.runs:
            self.trial_started(name)
        folder = Path(self.specs[name].folder)
        if self.storage is not None and self.history[name]:
            with suppress(StorageError) if how == "failed" else nullcontext():
                self.storage.fetch(name, len(self.history[name]))
        if how == "failed":  # it keeps its checkpoint: a resumed search tries it again
            self.failures[name] = reason
            self.diverged |= {name} if diverged else set()
        else:
            write_ending(folder, TrialEnding(how=how, history=self.history[name]))
            for file in (LAST, PREVIOUS, HEARTBEAT):
                (folder / file).unlink(missing_ok=True)
        self.table.ended(name, how, reason)
        self._log_end(name, how, reason)
        if self.progress is not None:
            self.progress.tick()

    def _log_end(self, name: str, how: str, reason: str) -> None:
        """Log a trial's end; the tag that states it is last, since a resumed search relies on it."""
        run, spec = self.runs[name], self.specs[name]
        note = ended_note(spec, self.searched(spec.recipe), self.history[name], how, reason)
        score = score_trial(self.history[name], spec.objective, recipes_of(spec)[1].kept_phase)
        if score is not None:
            self.writer.log_epoch(run, len(self.history[name]), score.summary)
            self.scores[name] = score.objective
            self.writer.set_tags(run, {Tag.KEPT_PHASE: score.phase})
            self._log_predictions(name, score.phase)
        self.writer.set_tags(run, {Tag.NOTE: note, **({Tag.ERROR: reason} if reason else {})})
        self.writer.finish(run, "FAILED" if how == "failed" else "FINISHED")
        self.writer.set_tags(run, {Tag.ENDED: how})
        if score is not None and how != "failed" and self.reached_full_phase(name):
            self.consider(name, score.objective)

    def _log_predictions(self, name: str, phase: str) -> None:
        written = predictions_path(self.specs[name].folder, phase)
        if written.exists():
            self.writer.log_predictions(self.runs[name], "validation", read_predictions(written))

    def reached_full_phase(self, name: str) -> bool:
        """Whether a trial has finished an epoch of its full phase."""
        return any(row["phase"] == len(PHASES) for row in self.history.get(name, []))

    def stop_running(self) -> None:
        """The search is over: the time budget stopped what still runs, and Tune does not report that."""
        for name, row in self.table.rows.items():
            if row.state == "running":
                self.trial_ended(name, "stopped", "")
        if self.progress is not None:
            self.progress.update()

    def consider(self, name: str, objective: float) -> None:
        """A trial that has ended may be its recipe's best; the loser's weights are removed.

        Of two tied trials the earlier one of the plan wins, whichever ended first: a resumed search hears of them in
        another order, and must not remove the weights that the first one kept.
        """
        recipe, places = self.specs[name].recipe, list(self.specs)
        held = self.best.get(recipe)
        loser = name
        if held is None or _rank(objective, places.index(name)) > _rank(held[0], places.index(held[1])):
            self.best[recipe] = (objective, name)
            loser = held[1] if held else ""
        if loser and not self.keep_all:
            if self.storage is not None:
                self.storage.forget(loser)
            for phase in PHASES:
                (Path(self.specs[loser].folder) / best_name(phase)).unlink(missing_ok=True)

    def tick(self) -> None:
        """Redraw, and update the search's own run."""
        self.require_owner()
        self.table.tick()
        if self.progress is not None:
            self.progress.tick()

    def require_owner(self) -> None:
        """Make sure that no other command has taken the search over, on another machine.

        Raises:
            SweepTakenError: one has.
        """
        if self.storage is not None:
            self.storage.require_owner()

    def weights_notes(self) -> list[str]:
        """A sentence for each trial that would be its recipe's best if its weights were not gone."""
        return [
            f"The weights of {name} are missing, which reached {objective:.4f}: more than the tested trial of {recipe}."
            for name, objective in self.removed.items()
            if (recipe := self.specs[name].recipe) in self.best
            and comparable(objective) > comparable(self.best[recipe][0])
        ]

    def adapted(self, note: str, max_concurrent: int | None = None) -> None:
        """Print and keep what happened to the search."""
        self.notes += [note] if note not in self.notes else []
        if max_concurrent is not None:
            self.table.concurrent = max_concurrent
        self.table.print(f"Note: {note}")
        self.on_adapted(note, max_concurrent)

    def interrupted(self) -> None:
        """Close the runs."""
        self.on_interrupt()


def _rank(objective: float, place: int) -> tuple[float, int]:
    return comparable(objective), -place


def _full_objectives(record: RunRecord, objective: str) -> Sequence[float]:
    if not {"phase", objective} <= set(record.history):
        return []
    return [float(value) for value in record.history.loc[record.history["phase"] == len(PHASES), objective]]
