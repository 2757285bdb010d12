"""Configuration of a registered model: one JSON file among its artifacts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muralab.serving.scaling import Scaling

DISCLAIMER = "Not a medical device. For research and teaching only; no answer of this model may guide treatment."

MAX_ROWS = 64
"""Largest number of rows in a request; a study has fewer than ten views."""


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """Preprocessing, calibration and origin of a served model."""

    image_size: int
    """Side of the network input in px."""

    image_temperature: float = 1.0
    """Divisor of the logit of an image."""

    image_intercept: float = 0.0
    """Added to it."""

    study_temperature: float = 1.0
    """Divisor of the logit of the mean image probability of a study."""

    study_intercept: float = 0.0
    """Added to it."""

    method: str = "temperature"
    """What was fitted: "temperature" (earlier versions), "slope and intercept" or "none"."""

    prevalence: float | None = None
    """Share of abnormal studies for which the probabilities hold; None: not recorded, so they cannot be shifted."""

    n_studies: int | None = None
    """Validation studies that the calibration was fitted on; None: not recorded."""

    sensitivity_bound: float | None = None
    """Lower 95% confidence bound of the sensitivity on new patients, for the rule "sensitivity>=x"."""

    threshold: float = 0.5
    """Calibrated study probability at or above which a study is called abnormal."""

    rule: str = ""
    """How the threshold was chosen on the validation studies, as text."""

    uncertain_low: float | None = None
    """Lower end of the band of calibrated study probabilities called uncertain; None: no band."""

    uncertain_high: float | None = None
    """Upper end of that band."""

    recipe: str = ""
    """Name of the recipe."""

    part: str = ""
    """Body part in the training data."""

    synthetic: bool = False
    """Whether the training images are synthetic."""

    typical_mean: tuple[float, float] | None = None
    """Range of the mean grey value (0 to 255) in the training images; None: unknown."""

    typical_contrast: tuple[float, float] | None = None
    """Range of the standard deviation of grey values in the training images; None: unknown."""

    value_range: tuple[int, int] | None = None
    """Stored values that are black and white in files that do not say so, such as 16-bit PNG; None: as their type says,
    because the training images were all of 8 bits or windowed, or an earlier version trained the model."""

    disclaimer: str = DISCLAIMER
    """Shown to every client."""

    @property
    def image_scaling(self) -> Scaling:
        """What calibrates the logit of an image."""
        return Scaling(temperature=self.image_temperature, intercept=self.image_intercept)

    @property
    def study_scaling(self) -> Scaling:
        """What calibrates the logit of the mean image probability of a study."""
        return Scaling(temperature=self.study_temperature, intercept=self.study_intercept)


def write_config(config: ServingConfig, path: Path) -> None:
    """Write the file that `read_config` reads."""
    path.write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")


def read_config(path: Path) -> ServingConfig:
    """Read the file of a registered model; unknown keys, from a later version, are ignored."""
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    known = {key: value for key, value in stored.items() if key in ServingConfig.__dataclass_fields__}
    for key in ("typical_mean", "typical_contrast", "value_range"):
        if known.get(key) is not None:
            known[key] = tuple(known[key])
    return ServingConfig(**known)


def read_version(config_path: Path) -> str:
    """Name and version of the registered model, from the file that MLflow adds when it downloads a model by name."""
    import yaml  # type: ignore[import-untyped]

    path = config_path.parent.parent / "registered_model_meta"
    if not path.is_file():
        return "not registered"
    stored = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return f"{stored.get('model_name', '?')}/{stored.get('model_version', '?')}"
