"""Pooled features of a frozen backbone, computed once for a few augmented views and shared between trials.

While the backbone is frozen its output for a given picture never changes, so the 30 epochs of the upper phase need it
for `views` draws of the augmentation, not for 30. N images, D features, V views.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from muralab.training.network import Network

LOCK_WAIT_S = 3600.0
KEPT_UNUSED_S = 30 * 86_400.0
"""Features that no trial has asked for in so long are removed when others are written."""


@dataclass(frozen=True)
class Features:
    """What the head trains and is validated on."""

    train: np.ndarray
    """float32 [V, N, D]: features of each augmented view of each training image."""
    validation: np.ndarray
    """float32 [M, D]: features of the validation images as they are."""


def backbone_digest(network: Network) -> str:
    """SHA-256 of the backbone's tensors, 16 hexadecimal digits: random and pretrained weights alike."""
    digest = hashlib.sha256()
    for name, value in network.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def features_key(network: Network, **facts: object) -> str:
    """A name for the features: the backbone's tensors and everything else that they depend on."""
    text = json.dumps({"backbone": backbone_digest(network), **facts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def open_features(
    folder: Path,
    key: str,
    compute: Callable[[], Features],
) -> Features:
    """The features of that key, from disk (memory-mapped) or computed by whoever comes first.

    Args:
        folder: where features are kept.
        key: from `features_key`.
        compute: called in one process only; the others wait for it.
    """
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{key}-{name}.npy" for name in ("train", "validation")]
    with FileLock(folder / f"{key}.lock", timeout=LOCK_WAIT_S):
        try:
            return _read(files)
        except (OSError, ValueError, EOFError):  # missing, or cut short by a full disk
            features = compute()
        _remove_unused(folder)
        for file, values in zip(files, (features.train, features.validation), strict=True):
            temporary = file.with_suffix(".tmp.npy")
            np.save(temporary, values)
            temporary.replace(file)
        return _read(files)


def _read(files: Sequence[Path]) -> Features:
    features = Features(*(np.load(file, mmap_mode="r") for file in files))
    for file in files:
        file.touch()  # used today, see `_remove_unused`
    return features


def _remove_unused(folder: Path) -> None:
    """Make room: of a large data set each file takes hundreds of megabytes, and another seed or strength is another."""
    for file in folder.glob("*.npy"):
        if time.time() - file.stat().st_mtime > KEPT_UNUSED_S:
            file.unlink(missing_ok=True)


def compute_features(
    network: Network, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], n_images: int, device: str, amp: bool
) -> np.ndarray:
    """Pooled features float32 [N, D] of batches (images uint8 [B, S, S], positions int64 [B])."""
    import torch

    values: np.ndarray | None = None
    training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=amp):
        for images, positions in batches:
            pooled = network.pooled(images.to(device, non_blocking=True)).float().cpu().numpy()
            if values is None:
                values = np.zeros((n_images, pooled.shape[1]), dtype=np.float32)
            values[positions.numpy()] = pooled
    network.train(training)
    return values if values is not None else np.zeros((0, 0), dtype=np.float32)
