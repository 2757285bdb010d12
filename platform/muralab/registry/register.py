"""Register a trained network as a new version of a model: exported, verified, with its card, tags and example.

Shapes: N verification images, S side of the network's input in px.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from muralab.data.images.value_range import range_from_text
from muralab.registry.bundle import check_bundle, write_bundle
from muralab.registry.creation import create_logged_model, publish
from muralab.registry.export import export_onnx
from muralab.registry.fast_engine import NO_FAST_ENGINE, EngineTest, run_engine, try_fast_engine
from muralab.registry.silence import silenced
from muralab.serving.config import DISCLAIMER, ServingConfig
from muralab.serving.engine import open_session
from muralab.serving.familiarity import Familiarity, fit_familiarity
from muralab.serving.scaling import Scaling
from muralab.tracking import Store
from muralab.tracking.failures import shorten, store_errors
from muralab.tracking.storable import MAX_DESCRIPTION
from muralab.tracking.tags import Tag

if TYPE_CHECKING:
    from muralab.training.network import Network

CALIBRATION = (
    "image_temperature",
    "image_intercept",
    "study_temperature",
    "study_intercept",
    "method",
    "prevalence",
    "n_studies",
    "threshold",
    "rule",
    "sensitivity_bound",
    "uncertain_low",
    "uncertain_high",
)
"""Fields of a calibration that a served model's configuration has too."""
MAX_FAMILIAR = {"train": 1000, "validation": 500}
"""Images of each set that are measured; more hardly move the limit, and the features of the first are served."""
MAX_CARD = MAX_DESCRIPTION - 600
"""Characters of a card: a disclaimer follows it, and later how to read its figures after several evaluations."""
_BATCH = 32
_MIN_TYPICAL = 20
"""Fewer training images than this give no usable range of typical brightness and contrast."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FamiliarImages:
    """Network inputs that show what a model is for, uint8 [N, S, S] each."""

    train: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """A version of a registered model."""

    name: str
    """Such as mura-wrist."""

    version: str
    """The version number, as text."""

    uri: str
    """What `mlflow models serve -m` takes: with the alias where there is one, else with the version."""

    engine: str = ""
    """Which engine it is served with, as a sentence, where the fast one was asked for; else empty."""


def register_model(
    *,
    network: Network,
    image_size: int,
    calibration: Mapping[str, Any],
    name: str,
    run_id: str,
    card: str,
    tags: Mapping[str, str],
    verify_images: np.ndarray,
    familiar: FamiliarImages | None = None,
    fast: EngineTest | None = None,
    alias: str | None = "champion",
    store: Store,
) -> RegisteredModel:
    """Export, verify, log and register a network.

    Every check runs before the version is created, so a failed check leaves no version behind. What an interruption
    leaves, the next registration of the run uses.

    Args:
        network: the trained network.
        image_size: S in px.
        calibration: the fields of `CALIBRATION`; those that are missing or None take the configuration's defaults.
        name: of the registered model.
        run_id: the run that trained it.
        card: description of the version, Markdown.
        tags: of the version; recipe, part, synthetic and the value range are also stored in the served model's
            configuration.
        verify_images: training or validation images, uint8 [N, S, S], on which torch and the served model are
            compared. If there are 20 or more, the served model warns about images that are far from them.
        familiar: training and validation images, so that the served model warns about images that are unlike them in
            its features; None: it does not.
        fast: what a fast engine is compared with the exact one on, to be added if it is as good; None: none is built.
        alias: moves to this version; None leaves the aliases unchanged.
        store: holds the run, and takes the model. An answer that is lost leads to no second model or version.

    Returns:
        The new version.

    Raises:
        RuntimeError: the exported or the served model differs from torch.
        StoreError: the store does not take it.
    """
    config = build_config(image_size, calibration, tags, verify_images)
    with tempfile.TemporaryDirectory() as temporary, store_errors(store, f"register {name}"):
        onnx, folder = Path(temporary) / "model.onnx", Path(temporary) / "bundle"
        with silenced():
            export_onnx(network, image_size, onnx, verify_images=verify_images)
        logged = create_logged_model(store, run_id)
        try:
            known = None if familiar is None else measure_familiarity(network, familiar)
            engine = NO_FAST_ENGINE
            if fast is not None:
                validation = None if familiar is None else familiar.validation
                engine = try_fast_engine(onnx, fast, verify_images, familiarity=known, validation=validation)
            model = _mlflow_model(logged, run_id)
            with silenced():
                write_bundle(folder, onnx, config, fast=engine.path, familiarity=known, model=model, example=_example())
                if engine.path is None:
                    expected = _probabilities(network, verify_images, config.image_scaling)
                else:
                    logits = run_engine(open_session(engine.path), "logits", verify_images)
                    expected = config.image_scaling.probabilities(logits)
                check_bundle(folder, verify_images, expected)
            store.client.log_model_artifacts(logged.model_id, str(folder))
        except Exception:
            with contextlib.suppress(Exception):  # else the next registration of this run uses it, as after a Ctrl-C
                store.impatient().client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        kept = shorten(card, MAX_CARD - len(engine.section))
        description = f"{kept}{engine.section}\n\n{DISCLAIMER}"
        version = publish(store, name, logged, run_id, description, {**tags, **engine.tags}, alias=alias)
    uri = f"models:/{name}@{alias}" if alias else f"models:/{name}/{version}"
    return RegisteredModel(name=name, version=version, uri=uri, engine=engine.text)


def build_config(
    image_size: int, calibration: Mapping[str, Any], tags: Mapping[str, str], images: np.ndarray
) -> ServingConfig:
    """The served model's configuration.

    Args:
        image_size: S in px.
        calibration: the fitted scalings, threshold and band.
        tags: of the version; recipe, part, synthetic and the value range are read.
        images: uint8 [N, S, S], from the training distribution.
    """
    means, contrasts = images.mean(axis=(1, 2)), images.std(axis=(1, 2))
    return ServingConfig(
        image_size=image_size,
        recipe=tags.get(Tag.RECIPE, ""),
        part=tags.get(Tag.PART, ""),
        synthetic=tags.get(Tag.SYNTHETIC) == "true",
        typical_mean=_widened(means),
        typical_contrast=_widened(contrasts),
        value_range=range_from_text(tags.get(Tag.VALUE_RANGE, "")),
        **{key: calibration[key] for key in CALIBRATION if calibration.get(key) is not None},
    )


def _widened(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """The range of the values, extended by half its width on either side; None for too few values."""
    if len(values) < _MIN_TYPICAL:
        return None
    low, high = float(np.min(values)), float(np.max(values))
    return low - (high - low) / 2, high + (high - low) / 2


def _mlflow_model(logged: Any, run_id: str) -> Any:
    from mlflow.models import Model

    return Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        run_id=run_id,
        model_id=logged.model_id,
    )


def _example() -> list[bytes]:
    from muralab.demo.dataset import example_study

    return example_study(0)


def measure_familiarity(network: Network, images: FamiliarImages) -> Familiarity | None:
    """The features of training images, and the limit that validation images set; None for too few images."""
    import copy

    import torch

    frozen = copy.deepcopy(network).to("cpu").float().eval()

    def features(squares: np.ndarray) -> np.ndarray:
        parts = np.array_split(squares, max(1, len(squares) // _BATCH))
        with torch.inference_mode():
            return np.concatenate(
                [frozen.pooled(torch.from_numpy(np.ascontiguousarray(part))).numpy() for part in parts]
            )

    return fit_familiarity(
        features(images.train),
        features(images.validation),
        train_squares=images.train,
        validation_squares=images.validation,
    )


def _probabilities(network: Network, images: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Calibrated probabilities in torch, float [N]."""
    import copy

    import torch

    frozen = copy.deepcopy(network).to("cpu").float().eval()
    with torch.inference_mode():
        logits = frozen(torch.from_numpy(np.ascontiguousarray(images)))
        return np.asarray(torch.sigmoid(logits.double() / scaling.temperature + scaling.intercept).numpy())
