"""The pyfunc that MLflow serves: decode, run the network in onnxruntime, answer.

Shape legend: V views (rows) of a request, S side of the network input, h w height and width of the last feature map.
"""

from __future__ import annotations

import base64
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

from muralab.processor import count_cpus
from muralab.serving.answer import build_answer
from muralab.serving.config import ServingConfig, read_config, read_version
from muralab.serving.engine import open_engine
from muralab.serving.familiarity import read_familiarity
from muralab.serving.heat import coarse_reason, enlarge, is_too_coarse
from muralab.serving.memory import Trimmer, give_memory_back
from muralab.serving.request import View, check_views, read_params, read_views

BATCH_SIZE = 8
"""Views per run of the network, so that a large request takes no more memory than a small one."""

RUNS = 4
"""Largest number of batches at once: each takes memory, and each already uses all cores."""


class StudyClassifier(PythonModel):  # type: ignore[misc]
    """Classifies the studies of a request as abnormal or not. Not a medical device."""

    def load_context(self, context: Any) -> None:
        """Open the network and its configuration.

        Args:
            context: from MLflow; its artifacts are `onnx`, `config` and, in some models, `fast` and `familiarity`.
        """
        give_memory_back()
        self._trim = Trimmer()
        path = Path(context.artifacts["config"])
        self._config: ServingConfig = read_config(path)
        self._version = read_version(path)
        self._running = threading.BoundedSemaphore(min(count_cpus(), RUNS))
        self._session = open_engine(context.artifacts["onnx"], context.artifacts.get("fast"))
        known = context.artifacts.get("familiarity")  # too few training images give none
        self._familiarity = None if known is None else read_familiarity(Path(known))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer one request.

        Args:
            context: not used.
            model_input: table with `image` (base64 text or bytes of a picture file) and optionally `study`.
            params: `threshold`, `prevalence`, `explain` and `policy`, see `RequestParams`.

        Returns:
            One row per input row, with its index, see `build_answer`; also `heatmap` with `explain`, and `error` with
            the policy "partial".

        Raises:
            MlflowException: the request cannot be answered; one message names all bad rows. HTTP 400.
        """
        del context
        try:
            return self._answer(model_input, params)
        finally:
            self._trim()

    def _answer(self, model_input: pd.DataFrame, params: dict[str, Any] | None) -> pd.DataFrame:
        checked = read_params(params)
        views = read_views(model_input, checked, self._config)
        readable = [(row, view.square) for row, view in enumerate(views) if view.square is not None]
        found, heat, strange = self._run([square for _, square in readable], explain=checked.explain)
        logits = np.full(len(views), np.nan)
        logits[[row for row, _ in readable]] = found
        for (row, _), warning in zip(readable, strange):
            views[row] = replace(views[row], warnings=(*views[row].warnings, warning)) if warning else views[row]
        views = _drop_unanswered(views, logits)
        check_views(views, checked)
        answer = build_answer(views, logits, self._config, checked, self._version)
        if checked.explain:
            answered = [(row, square, warm) for (row, square), warm in zip(readable, heat) if not views[row].error]
            drawn = {row: draw_heat(square, warm) for row, square, warm in answered if not is_too_coarse(warm.shape)}
            answer["heatmap"] = pd.Series([drawn.get(row) for row in range(len(views))], dtype=object)
            for row, _, warm in answered:
                if row not in drawn:
                    answer["warnings"][row].append(coarse_reason(warm.shape))
        if checked.policy == "partial":
            answer["error"] = pd.Series([view.error for view in views], dtype=object)
        if isinstance(model_input, pd.DataFrame):
            answer.index = model_input.index  # whoever assigns a column back gets it on the rows that were sent
        return answer

    def _run(self, squares: list[np.ndarray], *, explain: bool) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
        """Logits, float [V]; with `explain` a heat map each, float [h, w]; and a warning each, empty for most."""
        wanted = ["logits", *(["heatmap"] if explain else []), *(["features"] if self._familiarity else [])]
        logits: list[np.ndarray] = []
        heat: list[np.ndarray] = []
        warnings: list[str] = []
        for start in range(0, len(squares), BATCH_SIZE):
            images = np.stack(squares[start : start + BATCH_SIZE])
            with self._running:
                values = self._session.run(wanted, {"images": images})
            found = dict(zip(wanted, values))
            logits.extend(found["logits"])
            heat.extend(found.get("heatmap", ()))
            if self._familiarity is not None:
                warnings.extend(self._familiarity.warnings(found["features"], images))
        return np.asarray(logits, float), heat, warnings


def _drop_unanswered(views: list[View], logits: np.ndarray) -> list[View]:
    """Turn views without a finite logit into errors: compared with a threshold, NaN would count as normal."""
    reason = "the network gives no finite answer for this picture"
    return [
        replace(view, square=None, error=reason) if view.square is not None and not np.isfinite(logit) else view
        for view, logit in zip(views, logits)
    ]


def draw_heat(square: np.ndarray, heat: np.ndarray) -> str:
    """Overlay a heat map on the network input, as a grid where it has few cells.

    Args:
        square: uint8 [S, S].
        heat: float [h, w], at least 0.

    Returns:
        Base64 text of an S x S px colour PNG.
    """
    share = enlarge(heat, len(square))
    colours = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_JET)
    weight = 0.5 * share[..., None]
    blended = (1 - weight) * square[..., None] + weight * colours
    return base64.b64encode(cv2.imencode(".png", np.rint(blended).astype(np.uint8))[1].tobytes()).decode("ascii")
