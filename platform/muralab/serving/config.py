"""What a registered model knows beside its network: one JSON file among its artifacts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DISCLAIMER = "Not a medical device. For research and teaching only; no answer of this model may guide treatment."

MAX_ROWS = 64
"""Rows a request may have; a study has fewer than ten views."""


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """Preprocessing, calibration and origin of a served model."""

    image_size: int
    """Side of the network's input in px."""

    image_temperature: float = 1.0
    """Divides an image's logit."""

    study_temperature: float = 1.0
    """Divides the logit of a study's mean image probability."""

    threshold: float = 0.5
    """Calibrated study probability from which a study is abnormal."""

    rule: str = ""
    """How the threshold was chosen on the validation studies."""

    uncertain_low: float | None = None
    """Lower end of the band of calibrated study probabilities that is called uncertain; None: no band."""

    uncertain_high: float | None = None
    """Upper end of that band."""

    recipe: str = ""
    """Name of the architecture."""

    part: str = ""
    """Body part that it was trained on."""

    synthetic: bool = False
    """Whether it was trained on synthetic pictures."""

    typical_mean: tuple[float, float] | None = None
    """Range of the mean grey value (0 to 255) in the training pictures; None: not known."""

    typical_contrast: tuple[float, float] | None = None
    """Range of the standard deviation of the grey values in the training pictures; None: not known."""

    disclaimer: str = DISCLAIMER
    """What every client is told."""


def write_config(config: ServingConfig, path: Path) -> None:
    """Write the file that `read_config` reads."""
    path.write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")


def read_config(path: Path) -> ServingConfig:
    """Read a registered model's file; keys of a later version are passed over."""
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    known = {key: value for key, value in stored.items() if key in ServingConfig.__dataclass_fields__}
    for key in ("typical_mean", "typical_contrast"):
        if known.get(key) is not None:
            known[key] = tuple(known[key])
    return ServingConfig(**known)


def read_version(config_path: Path) -> str:
    """Name and version of the registered model, from the file that MLflow lays beside a model it fetched by name."""
    import yaml  # type: ignore[import-untyped]

    path = config_path.parent.parent / "registered_model_meta"
    if not path.is_file():
        return "not registered"
    stored = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return f"{stored.get('model_name', '?')}/{stored.get('model_version', '?')}"
