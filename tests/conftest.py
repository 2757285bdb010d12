"""Fixtures for all tests: a tiny MURA tree, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteTree = Callable[..., Path]
IMAGE_SIZE = (48, 40)  # width, height in px


def _write_image(path: Path, seed: int) -> None:
    """A picture of 8 x 8 random patches: no two seeds look alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    patches = np.random.default_rng(seed).integers(20, 235, (8, 8), dtype=np.uint8)
    picture = Image.fromarray(patches).resize(IMAGE_SIZE, Image.Resampling.BILINEAR)
    (picture.convert("RGB") if seed % 3 == 0 else picture).save(path)


def _write_split(root: Path, split: str, part: str, patients: range) -> None:
    """Patients with one study, positive for every odd number, and one to three views."""
    for patient in patients:
        name = f"patient{patient:05d}/study1_{('negative', 'positive')[patient % 2]}"
        folder = root / split / f"XR_{part.upper()}" / name
        for view in range(1, 2 + patient % 3):
            _write_image(folder / f"image{view}.png", seed=1000 * patient + view)
        (folder / "._image1.png").write_bytes(b"hidden, and no picture")


def _write_lists(root: Path, split: str) -> None:
    images = sorted(path.relative_to(root).as_posix() for path in root.glob(f"{split}/*/*/*/image*.png"))
    studies = sorted({image.rpartition("/")[0] for image in images})
    lines = [f"{root.name}/{study}/,{int(study.endswith('positive'))}" for study in studies]
    (root / f"{split}_image_paths.csv").write_text("".join(f"{root.name}/{image}\n" for image in images))
    (root / f"{split}_labeled_studies.csv").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="session")
def write_tree() -> WriteTree:
    """A function that writes a MURA tree below a folder and returns its root."""

    def write(
        folder: Path,
        *,
        parts: tuple[str, ...] = ("hand", "wrist"),
        n_train: int = 12,
        n_valid: int = 4,
        lists: bool = True,
    ) -> Path:
        root = folder / "MURA-v1.1"
        for number, part in enumerate(parts):
            start = 1 + number * (n_train + n_valid)
            _write_split(root, "train", part, range(start, start + n_train))
            _write_split(root, "valid", part, range(start + n_train, start + n_train + n_valid))
        for split in ("train", "valid") if lists else ():
            _write_lists(root, split)
        return root

    return write


@pytest.fixture(scope="session")
def tiny_tree(tmp_path_factory: pytest.TempPathFactory, write_tree: WriteTree) -> Path:
    """The root of a tree of two parts, 32 patients and 63 small images; not to be changed."""
    return write_tree(tmp_path_factory.mktemp("tiny"))
