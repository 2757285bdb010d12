"""Two-phase training as a generator: it yields one `EpochResult` per epoch, and its caller logs, reports and stops.

The order of an epoch: train every batch, evaluate the averaged weights, keep the best, write the checkpoint, yield.
The checkpoint is complete before each yield, so a caller may stop after any epoch (`contextlib.closing`), and a later
call with the same folder resumes after the last epoch that was yielded. If the checkpoint is damaged, the one before it
is used, and without one training starts again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from muralab.errors import DivergedError, SettingsError
from muralab.training.checkpoint import read_newest, read_tensors, write_tensors
from muralab.training.device import memory_errors
from muralab.training.network import Network
from muralab.training.phase_trainer import PhaseTrainer, TrainerSettings, TrainingData
from muralab.training.phases import PHASES, Phase, freeze, head_alone

LAST = "last.safetensors"
PREVIOUS = "previous.safetensors"
"""The checkpoint before the last one: it is used if the last one is damaged."""


def best_name(phase: str) -> str:
    """File name of a phase's best weights."""
    return f"best_{phase}.safetensors"


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Result of one epoch."""

    phase: str
    epoch: int
    """Within the phase, from 1."""
    global_epoch: int
    """Over both phases, from 1."""
    lr: float
    """Learning rate of the head at the last step."""
    train_loss: float
    """Unweighted binary cross-entropy on the augmented training images, averaged over the steps of the epoch."""
    train_accuracy: float
    """Accuracy at 0.5, image level, averaged likewise."""
    validation: dict[str, float]
    """Metrics that `validate` returned."""
    seconds: float
    """Duration of training and validation."""
    best: bool
    """Whether this is the phase's best epoch so far."""
    ends_phase: bool
    """Whether this is the phase's last epoch."""
    batch_parts: int = 1
    """In how many parts each batch was computed because the device's memory did not hold it whole."""

    def metrics(self) -> dict[str, float]:
        """Metrics to log for this epoch."""
        return {
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            **self.validation,
            "phase": float(PHASES.index(self.phase) + 1),
            "lr": self.lr,
            "epoch_seconds": self.seconds,
            **({"batch_parts": float(self.batch_parts)} if self.batch_parts > 1 else {}),
        }


Validate = Callable[[Network, torch.Tensor | None], Mapping[str, float]]
"""(network to evaluate, pooled validation features [M, D] if the backbone is frozen) -> metrics"""


def train(
    network: Network,
    phases: Mapping[str, Phase],
    data: TrainingData,
    *,
    settings: TrainerSettings,
    validate: Validate,
    folder: Path,
    on_best: Callable[[str], None] = lambda _: None,
) -> Generator[EpochResult]:
    """Train a network in its phases, from the start or from the folder's checkpoint.

    Args:
        network: on its device, with its initial weights; at the end it holds the last epoch's averaged weights.
        phases: name -> phase, in order.
        data: batches of an epoch, and features if the backbone is frozen.
        settings: of both phases.
        validate: evaluates the averaged weights.
        folder: for the last two checkpoints and each phase's best weights.
        on_best: called with a phase whose best weights have been written, before the checkpoint that counts the epoch.

    Yields:
        One result per epoch. A resumed run first yields the earlier results again, from its checkpoint.

    Raises:
        DivergedError: the training loss or a weight is not finite.
        MemoryExceededError: a step needs more memory than the device has.
        SettingsError: the objective is not among the metrics that `validate` returns.
    """
    tensors, state = read_newest([folder / LAST, folder / PREVIOUS])
    history = [EpochResult(**row) for row in state.get("history", [])]
    yield from history
    for name, phase in phases.items():
        if phase.epochs == 0:
            continue
        done = [row for row in history if row.phase == name]
        resumed = tensors if done and history[-1].phase == name else {}
        if done and not resumed:
            continue  # the checkpoint of a later phase contains the whole network
        # No variable holds the trainer: its optimiser and averages are freed before the next phase.
        yield from _train_phase(
            _phase_trainer(network, name, phase, data, settings, resumed), validate, folder, history, on_best
        )


def _phase_trainer(
    network: Network,
    name: str,
    phase: Phase,
    data: TrainingData,
    settings: TrainerSettings,
    resumed: dict[str, torch.Tensor],
) -> PhaseTrainer:
    with memory_errors():
        names = freeze(network, phase)
        # In the first phase only: the files of a later one must contain the backbone that an earlier one trained.
        cached = head_alone(names) and name == PHASES[0]
        trainer = PhaseTrainer(network, name, phase, data, settings, features=cached)
        if resumed:
            trainer.load_state(resumed)
    return trainer


def _train_phase(
    trainer: PhaseTrainer,
    validate: Validate,
    folder: Path,
    history: list[EpochResult],
    on_best: Callable[[str], None],
) -> Iterator[EpochResult]:
    name, phase, objective = trainer.name, trainer.phase, trainer.settings.objective
    scores = [row.validation[objective] for row in history if row.phase == name]
    for epoch in range(len(scores) + 1, phase.epochs + 1):
        if _out_of_patience(scores, phase.patience):
            break
        started = time.perf_counter()
        with memory_errors():
            loss, accuracy = trainer.train_epoch(epoch)
            _check_finite(loss if trainer.is_finite else math.nan, name, epoch, phase)
            metrics = dict(validate(trainer.evaluated, trainer.validation_features))
        score = _score(metrics, objective)
        best = not any(score <= other for other in scores)
        scores.append(score)
        result = EpochResult(
            phase=name,
            epoch=epoch,
            global_epoch=len(history) + 1,
            lr=trainer.lr,
            train_loss=loss,
            train_accuracy=accuracy,
            validation=metrics,
            seconds=time.perf_counter() - started,
            best=best,
            ends_phase=epoch == phase.epochs or _out_of_patience(scores, phase.patience),
            batch_parts=trainer.batch_parts,
        )
        history.append(result)
        if best:
            write_tensors(folder / best_name(name), trainer.evaluated_state(), {"epoch": epoch, "score": score})
            on_best(name)
        state = {"history": [asdict(row) for row in history]}
        write_tensors(folder / LAST, trainer.state(), state, previous=folder / PREVIOUS)
        yield result
    trainer.finish()


def _check_finite(loss: float, name: str, epoch: int, phase: Phase) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"Training diverged: the loss is {loss} in epoch {epoch} of the {name} phase at {name}.lr={phase.lr:g}. "
            f"Lower {name}.lr, lengthen {name}.warmup_epochs, or set clip_norm."
        )


def _score(metrics: Mapping[str, float], objective: str) -> float:
    if objective not in metrics:
        raise SettingsError(f"objective={objective}: expected one of {', '.join(sorted(metrics))}.")
    value = metrics[objective]
    return -math.inf if np.isnan(value) else value


def _out_of_patience(scores: list[float], patience: int) -> bool:
    if not patience or len(scores) <= patience:
        return False
    return len(scores) - 1 - int(np.argmax(scores)) >= patience


def trained_state(folder: Path, phase: str) -> dict[str, torch.Tensor]:
    """Read a phase's best weights: those of the head alone if the backbone was frozen.

    Raises:
        SettingsError: the phase has finished no epoch there.
    """
    if not (folder / best_name(phase)).exists():
        raise SettingsError(f"{folder} contains no weights of the {phase} phase: it has finished no epoch there.")
    return read_tensors(folder / best_name(phase))[0]
