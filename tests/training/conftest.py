"""A tiny network and 20 images of 16 px, so that an epoch takes milliseconds."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from muralab.data.loader import Batch
from muralab.training.features import Features
from muralab.training.network import Network

SIZE = 16


def build_network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU())
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    head = nn.Sequential(nn.Linear(24, 4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 1))
    return Network(backbone=backbone, pool=pool, head=head, channels=1)


@dataclass
class TinyDataset:
    """Random images, brighter where abnormal; a quarter is abnormal."""

    batch_size: int = 6
    n_images: int = 20
    calls: list[str] = field(default_factory=list)
    """Requests, in order."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.labels = (np.arange(self.n_images) % 4 == 0).astype(np.int64)
        pixels = rng.integers(0, 156, (self.n_images, SIZE, SIZE)) + 100 * self.labels[:, None, None]
        self.images = torch.from_numpy(pixels.astype(np.uint8))

    def batches(self, phase: str, epoch: int) -> Generator[Batch]:
        self.calls.append(f"{phase} {epoch}")
        order = torch.from_numpy(np.random.default_rng([len(phase), epoch]).permutation(self.n_images))
        for rows in order.split(self.batch_size):
            yield Batch(self.images[rows], torch.from_numpy(self.labels)[rows].float(), rows)

    def features(self, network: Network) -> Features:
        self.calls.append("features")
        network.eval()
        with torch.no_grad():
            pooled = network.pooled(self.images).numpy()
        return Features(np.stack([pooled, pooled * 1.1]), pooled)


@pytest.fixture
def dataset() -> TinyDataset:
    return TinyDataset()
