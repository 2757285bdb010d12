"""Pooled features of a frozen backbone, computed once for a few augmented views and shared between trials.

While the backbone is frozen its output for a given picture never changes, so the 30 epochs of the upper phase need it
for `views` draws of the augmentation, not for 30. N images, D features, V views.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
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

FEATURES_VERSION = 1
"""Raise it when features are computed, or their pictures augmented, in another way: those on disk are then not used."""
KEPT_UNUSED_S = 30 * 86_400.0
"""Features that no trial has asked for in so long are removed when others are written."""


@dataclass(frozen=True)
class Features:
    """What the head trains and is validated on."""

    train: np.ndarray
    """float32 [V, N, D]: features of each augmented view of each training image."""
    validation: np.ndarray
    """float32 [M, D]: features of the validation images as they are."""


def extractor_text(network: Network) -> str:
    """What turns a picture into pooled features, but for the tensors: modules, scaling, and the source of every class.

    Two networks of one backbone may pool or normalise differently, and who edits a module's `forward` keeps its name.
    """
    parts = [f"{network.backbone} {network.pool} {network.channels} {network.mean} {network.std}"]
    modules = (network, *network.backbone.modules(), *network.pool.modules())
    for kind in sorted({type(module) for module in modules}, key=lambda kind: kind.__qualname__):
        with contextlib.suppress(OSError, TypeError):  # a class that was typed in has no file
            parts.append(inspect.getsource(kind))
    return "\n".join(parts)


def extractor_digest(network: Network) -> str:
    """SHA-256, 16 hexadecimal digits, of all that makes pooled features of a picture, random weights or pretrained."""
    digest = hashlib.sha256(extractor_text(network).encode())
    for part in (network.backbone, network.pool):
        for name, value in part.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def features_key(network: Network, **facts: object) -> str:
    """A name for the features: the extractor's own and everything else that they depend on."""
    text = json.dumps(
        {"version": FEATURES_VERSION, "extractor": extractor_digest(network), **facts}, sort_keys=True, default=str
    )
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
        compute: called in one process only; the others wait for it, however long it takes (hours at 299 px without a
            GPU); the lock of a process that dies is free.
    """
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{key}-{name}.npy" for name in ("train", "validation")]
    with FileLock(folder / f"{key}.lock"):
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
        with contextlib.suppress(FileNotFoundError):  # another process makes room too
            if time.time() - file.stat().st_mtime > KEPT_UNUSED_S:
                file.unlink()


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
