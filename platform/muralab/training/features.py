"""Pooled features of a frozen backbone, computed once for a few augmented views and shared between trials.

The output of a frozen backbone for a given image never changes, so the upper phase computes it for V augmented views of
each image instead of once per epoch. N training images, M validation images, D features, V views.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from muralab.atomic import atomic_path
from muralab.heartbeat import beat
from muralab.locks import locked

if TYPE_CHECKING:
    import torch

    from muralab.training.network import Network

FEATURES_VERSION = 1
"""Increase it when the computation or the augmentation changes, so that features on disk are not reused."""
MAX_UNUSED_S = 30 * 86_400.0
"""Features unused for this long are removed when others are written."""


@dataclass(frozen=True)
class Features:
    """Inputs that the head is trained and validated on."""

    train: np.ndarray
    """float32 [V, N, D], of each augmented view of each training image"""
    validation: np.ndarray
    """float32 [M, D], of the validation images without augmentation"""


def extractor_text(network: Network) -> str:
    """Describe what computes pooled features, except the tensors: modules, normalisation, source code of every class.

    Networks with the same backbone may pool or normalise differently, and an edited `forward` keeps its class name.
    """
    parts = [f"{network.backbone} {network.pool} {network.channels} {network.mean} {network.std}"]
    modules = (network, *network.backbone.modules(), *network.pool.modules())
    for kind in sorted({type(module) for module in modules}, key=lambda kind: kind.__qualname__):
        with contextlib.suppress(OSError, TypeError):  # a class defined interactively has no source file
            parts.append(inspect.getsource(kind))
    return "\n".join(parts)


def extractor_digest(network: Network) -> str:
    """SHA-256 (16 hexadecimal digits) of the code and the tensors that compute pooled features."""
    digest = hashlib.sha256(extractor_text(network).encode())
    for part in (network.backbone, network.pool):
        for name, value in part.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def features_key(network: Network, **facts: object) -> str:
    """Key of cached features: a digest of the extractor and of everything else that they depend on."""
    text = json.dumps(
        {"version": FEATURES_VERSION, "extractor": extractor_digest(network), **facts}, sort_keys=True, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def open_features(
    folder: Path,
    key: str,
    compute: Callable[[], Features],
) -> Features:
    """Load the features of a key from disk (memory-mapped), or compute and store them.

    Args:
        folder: of the cached features; created if missing.
        key: from `features_key`.
        compute: called in one process only. The others wait without a time limit (it takes hours at 299 px without a
            GPU); the lock of a process that dies is released.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{key}-{name}.npy" for name in ("train", "validation")]
    checksums = folder / f"{key}.json"
    with locked(folder / f"{key}.lock"):
        try:
            return _read(files, checksums)
        except (OSError, ValueError, EOFError):  # missing, or truncated or damaged on disk
            features = compute()
        _remove_unused(folder)
        checksums.unlink(missing_ok=True)
        for file, values in zip(files, (features.train, features.validation), strict=True):
            with atomic_path(file) as temporary, temporary.open("wb") as handle:
                np.save(handle, values)
        with atomic_path(checksums) as temporary:
            written = [_checksum(values) for values in (features.train, features.validation)]
            temporary.write_text(json.dumps(written), encoding="ascii")
        return _read(files, checksums)


def _read(files: Sequence[Path], checksums: Path) -> Features:
    """Read the features of two files.

    Raises:
        ValueError: they are not what was written.
    """
    features = Features(*(np.load(file, mmap_mode="r") for file in files))
    if checksums.exists():  # an earlier version wrote none
        expected = json.loads(checksums.read_text(encoding="ascii"))
        if [_checksum(features.train), _checksum(features.validation)] != expected:
            raise ValueError("the checksums do not fit")
    for file in (*files, checksums):
        with contextlib.suppress(FileNotFoundError):
            os.utime(file)  # marks it as used, see `_remove_unused`
    return features


def _checksum(values: np.ndarray) -> int:
    """CRC-32 of an array's type, shape and bytes."""
    start = zlib.crc32(f"{values.dtype} {values.shape}".encode())
    return zlib.crc32(np.ascontiguousarray(values).data, start)


def _remove_unused(folder: Path) -> None:
    """Free disk space: on a large data set each file takes hundreds of megabytes, and every seed has its own."""
    for file in [*folder.glob("*.npy*"), *folder.glob("*.json*")]:  # with the partial files of killed processes
        with contextlib.suppress(FileNotFoundError):  # another process may remove it first
            if time.time() - file.stat().st_mtime > MAX_UNUSED_S:
                file.unlink()


def compute_features(
    network: Network,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    n_images: int,
    device: str,
    amp: bool,
    title: str = "features of images",
) -> np.ndarray:
    """Compute pooled features, float32 [N, D], of batches (images uint8 [B, S, S], row indices int64 [B])."""
    import torch

    done = 0
    values: np.ndarray | None = None
    training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=amp):
        for images, rows in batches:
            pooled = network.pooled(images.to(device, non_blocking=True)).float().cpu().numpy()
            if values is None:
                values = np.zeros((n_images, pooled.shape[1]), dtype=np.float32)
            values[rows.numpy()] = pooled
            done += len(rows)
            beat(title, done, n_images)
    network.train(training)
    return values if values is not None else np.zeros((0, 0), dtype=np.float32)
