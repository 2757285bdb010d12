"""The fast engine of a model: 8-bit weights and activations, registered only if it is as good on the test studies.

Only the network's body is reduced: its head, the gradient of the heat map and all outputs stay in float32.

Shapes: N images, S side of the network's input in px.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from muralab.errors import MuraLabError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.metrics import METRICS, evaluate_predictions
from muralab.processor import cpu_flags
from muralab.registry.silence import silenced
from muralab.serving.engine import EXACT, FAST, missing_instructions, open_session
from muralab.serving.familiarity import Familiarity
from muralab.serving.heat import is_too_coarse
from muralab.tracking.tags import Tag

BODY = ("Conv", "Relu", "Concat", "AveragePool", "MaxPool")
"""Operators that are computed with 8-bit integers."""
TOLERANCES = {"auroc": 0.005, "kappa": 0.025, "brier": 0.005, "ece": 0.01}
"""Metric of test studies -> how much worse it may be than with the exact engine."""
PROBABILITY_TOLERANCE = 0.025
"""Mean absolute difference in a test study's calibrated probability."""
HEAT_TOLERANCE = 0.9
"""Smallest mean cosine similarity of heat maps that are fine enough to be shown."""
WARNED_TOLERANCE = 0.03
"""Largest share of validation images that may be called unlike the training images; about 0.01 are, exactly."""
BATCH_SIZE = 8
"""Images per run, as served."""
_SCATTER = 1e-9  # rounding of differences that are 0


class FastEngineRefusedError(MuraLabError):
    """The fast engine is not good enough, or cannot be built or checked on this machine."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineTest:
    """What the exact and the fast engine are compared on."""

    model: EvaluatedModel
    """As it was evaluated, exactly, on the test set."""
    batches: Iterable[np.ndarray]
    """Its test images in the order of their predictions, uint8 [N, S, S] each; read once."""
    required: bool = False
    """Whether a fast engine that is not good enough is an error, rather than left out."""


@dataclass(frozen=True, kw_only=True)
class EngineCheck:
    """The fast engine against the exact one."""

    figures: Mapping[str, tuple[float, float]]
    """Metric of test studies -> its value with the exact and with the fast engine."""
    probability: float
    """Mean absolute difference in a test study's calibrated probability."""
    heat: float
    """Mean cosine similarity of heat maps; NaN where all are empty or too coarse to be shown."""
    warned: float | None
    """Share of validation images called unlike the training images; None: the model does not warn."""
    n_studies: int

    @property
    def problems(self) -> list[str]:
        """Which tolerances are exceeded, as text; empty for a fast engine that may be registered."""
        found = []
        for name, (exact, fast) in self.figures.items():
            worse = exact - fast if METRICS[name].higher_is_better else fast - exact
            if not worse <= TOLERANCES[name] + _SCATTER:  # NaN as well
                found.append(
                    f"{METRICS[name].title} {fast:.3f}, exact {exact:.3f} (at most {TOLERANCES[name]:g} worse)"
                )
        if not self.probability <= PROBABILITY_TOLERANCE:
            found.append(
                f"probabilities differ by {self.probability:.3f} in the mean (at most {PROBABILITY_TOLERANCE:g})"
            )
        if self.heat < HEAT_TOLERANCE:
            found.append(f"heat maps have a cosine similarity of {self.heat:.2f} (at least {HEAT_TOLERANCE:g})")
        if self.warned is not None and self.warned > WARNED_TOLERANCE:
            found.append(f"{self.warned:.1%} of validation images seem unlike the training images (at most 3%)")
        return found

    @property
    def text(self) -> str:
        """The figures in one sentence."""
        pairs = [
            f"{METRICS[name].title} {fast:.4f} (exact {exact:.4f})" for name, (exact, fast) in self.figures.items()
        ]
        more = [f"mean difference in probability {self.probability:.4f}"]
        if not math.isnan(self.heat):
            more.append(f"similarity of heat maps {self.heat:.3f}")
        if self.warned is not None:
            more.append(f"{self.warned:.1%} of validation images called unlike the training images")
        return f"On {self.n_studies} test studies: {', '.join([*pairs, *more])}."


@dataclass(frozen=True, kw_only=True)
class FastEngine:
    """What became of a fast engine."""

    path: Path | None
    """Its file; None: the model is registered with the exact engine alone."""
    text: str
    """Its figures, or why it is left out; empty where none was asked for."""

    @property
    def tags(self) -> dict[str, str]:
        """Of the version."""
        return {Tag.ENGINE: EXACT if self.path is None else FAST, Tag.ENGINE_CHECK: self.text} if self.text else {}

    @property
    def section(self) -> str:
        """Of the model's card, with the empty lines before it."""
        return f"\n\n## Engine\n\n{self.text}" if self.text else ""


NO_FAST_ENGINE = FastEngine(path=None, text="")
"""Where none was asked for."""


def try_fast_engine(
    exact: Path,
    test: EngineTest,
    verify_images: np.ndarray,
    *,
    familiarity: Familiarity | None = None,
    validation: np.ndarray | None = None,
) -> FastEngine:
    """Build a fast engine beside the exact one and keep it if it is as good; arguments as of `check_fast_engine`.

    Raises:
        FastEngineRefusedError: it is not, and the test requires it.
    """
    path, reason = exact.with_name("fast.onnx"), missing_instructions(cpu_flags())
    if not reason:
        try:
            build_fast_engine(exact, path, verify_images)
            check = check_fast_engine(exact, path, test, verify_images, familiarity=familiarity, validation=validation)
        except MuraLabError:  # a test image that is missing by now
            raise
        except Exception as error:  # onnxruntime's own types, for a network that it cannot reduce or run
            reason = (
                f"it cannot be built or run ({type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]})"
            )
        else:
            if not check.problems:
                return FastEngine(
                    path=path, text=f"The fast engine (8-bit integers) is as good as the exact one. {check.text}"
                )
            reason = "; ".join(check.problems)
    text = f"The fast engine is left out: {reason}."
    if test.required:
        raise FastEngineRefusedError(text)
    return FastEngine(path=None, text=f"{text} The exact engine serves.")


def build_fast_engine(exact: Path, path: Path, images: np.ndarray) -> None:
    """Write the network with its body in 8-bit integers: one scale per output channel and per activation.

    Args:
        exact: the exported network.
        path: the file to write.
        images: that show how large activations become, uint8 [N, S, S].
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = _batches(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch}

    with silenced():
        quantize_static(
            exact,
            path,
            Images(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(BODY),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def check_fast_engine(
    exact: Path,
    fast: Path,
    test: EngineTest,
    verify_images: np.ndarray,
    *,
    familiarity: Familiarity | None = None,
    validation: np.ndarray | None = None,
) -> EngineCheck:
    """Compare the two engines.

    Args:
        exact: the exported network.
        fast: as written by `build_fast_engine`.
        test: the exact engine's evaluation and the images.
        verify_images: for heat maps, uint8 [N, S, S].
        familiarity: of the training images.
        validation: images like the training images, uint8 [N, S, S]; given with `familiarity`.
    """
    session, reference = open_session(fast), open_session(exact)
    model = test.model
    table = model.predictions()
    logits = np.concatenate([_run(session, "logits", batch) for batch in test.batches])
    reduced = replace(model, test=table.assign(logit=logits))
    figures = [
        evaluate_predictions(
            one.predictions(), level="study", threshold=model.threshold, scaling=model.scaling_of("study")
        )
        for one in (model, reduced)
    ]
    moved = (model.studies()["calibrated"] - reduced.studies()["calibrated"]).abs()
    warned = None
    if familiarity is not None and validation is not None:
        distances = familiarity.distances(run_engine(session, "features", validation))
        warned = float((distances > familiarity.limit).mean())
    return EngineCheck(
        figures={name: (figures[0][name], figures[1][name]) for name in TOLERANCES},
        probability=float(moved.mean()),
        heat=_similarity(*(run_engine(one, "heatmap", verify_images) for one in (reference, session))),
        warned=warned,
        n_studies=len(moved),
    )


def _similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine similarity of heat maps [N, h, w]; an empty one is like nothing but another empty one."""
    if is_too_coarse(a.shape[1:]):
        return math.nan
    left, right = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (a, b))
    sizes = [np.linalg.norm(maps, axis=1) for maps in (left, right)]
    shown = (sizes[0] > 0) | (sizes[1] > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.nan_to_num((left * right).sum(axis=1) / (sizes[0] * sizes[1]))
    return float(cosines[shown].mean()) if shown.any() else math.nan


def run_engine(session: Any, output: str, images: np.ndarray) -> np.ndarray:
    """One output of a network for N images, in small batches, [N, ...]."""
    return np.concatenate([_run(session, output, batch) for batch in _batches(images)])


def _run(session: Any, output: str, images: np.ndarray) -> np.ndarray:
    return np.asarray(session.run([output], {"images": np.ascontiguousarray(images)})[0])


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    return (np.ascontiguousarray(images[first : first + BATCH_SIZE]) for first in range(0, len(images), BATCH_SIZE))
