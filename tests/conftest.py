"""Fixtures for all tests: tiny MURA trees, a split of one, a recipe outside the repository, a tracking server."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

if TYPE_CHECKING:
    from muralab.trial import TrialSpec

settings.register_profile("tests", deadline=None)  # tests must not fail because the machine is busy
settings.load_profile("tests")

os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven processes per server, which no test needs

STARTS_PROCESSES = {"bench", "disturbed_sweeps", "remote_bench", "server", "small_team", "tracking_server"}
"""Fixtures of sweeps and servers in processes of their own: files with them take longest."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers, start the files that take longest first, so that all workers end at about the same time."""
    if not hasattr(config, "workerinput"):
        return
    ranks: dict[Path, int] = {}
    for item in items:
        starts = STARTS_PROCESSES & set(getattr(item, "fixturenames", ()))
        rank = 0 if starts else 1 if item.get_closest_marker("slow") else 2
        ranks[item.path] = min(rank, ranks.get(item.path, 2))
    items.sort(key=lambda item: ranks[item.path])


@pytest.fixture
def break_locks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function after which no file system has locks: each attempt fails with an error number."""

    def break_all(number: int = errno.ENOLCK) -> None:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return break_all


WriteTree = Callable[..., Path]
BuildSpec = Callable[..., "TrialSpec"]
IMAGE_SIZE = (48, 40)  # width, height in px


def _write_image(path: Path, seed: int) -> None:
    """An image of 8 x 8 random patches, different for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    patches = np.random.default_rng(seed).integers(20, 235, (8, 8), dtype=np.uint8)
    image = Image.fromarray(patches).resize(IMAGE_SIZE, Image.Resampling.BILINEAR)
    (image.convert("RGB") if seed % 3 == 0 else image).save(path)


def _write_split(root: Path, split: str, part: str, patients: range) -> None:
    """Patients with one study, positive for every odd number, and one to three views."""
    for patient in patients:
        name = f"patient{patient:05d}/study1_{('negative', 'positive')[patient % 2]}"
        folder = root / split / f"XR_{part.upper()}" / name
        for view in range(1, 2 + patient % 3):
            _write_image(folder / f"image{view}.png", seed=1000 * patient + view)
        (folder / "._image1.png").write_bytes(b"hidden, and not an image")


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
    """The root of a tree of two parts, 32 patients and 63 small images; do not change it."""
    return write_tree(tmp_path_factory.mktemp("tiny"))


def write_easy_tree(root: Path, *, n_train: int = 48, n_valid: int = 24) -> Path:
    """Write a tree of 72 patients' wrists where a bright square means abnormal; the same files each time."""
    for patient in range(1, n_train + n_valid + 1):
        split, label = "train" if patient <= n_train else "valid", ("negative", "positive")[patient % 2]
        folder = root / split / "XR_WRIST" / f"patient{patient:05d}" / f"study1_{label}"
        folder.mkdir(parents=True)
        for view in range(1, 2 + patient % 2):
            pixels = np.random.default_rng([patient, view]).integers(20, 120, (40, 48), dtype=np.uint8)
            pixels[10:20, 10:20] = 255 if patient % 2 else 120
            Image.fromarray(pixels).save(folder / f"image{view}.png")
    return root


@pytest.fixture(scope="session")
def easy_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the tree of `write_easy_tree`; do not change it."""
    return write_easy_tree(tmp_path_factory.mktemp("easy") / "MURA-v1.1")


SMALL_NET = '''"""A network of one convolution, small enough that a whole sweep takes seconds."""

from torch import nn

from muralab.recipe import HEAD_ONLY, Augment, LogUniform, Network, Phase, Recipe, Uniform


def build(*, image_size, filters=8):
    backbone = nn.Sequential(nn.Conv2d(1, filters, 3, 2), nn.BatchNorm2d(filters), nn.ReLU(), nn.Dropout(0.1))
    pool = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    return Network(backbone=backbone, pool=pool, head=nn.Linear(filters, 1), channels=1)


RECIPE = Recipe(
    build=build,
    summary="small network",
    image_size=36,
    batch_size=8,
    model={"filters": 8},
    upper=Phase(epochs=2, lr=1e-2, trains=HEAD_ONLY),
    full=Phase(epochs=3, lr=2e-2, warmup_epochs=0.5),
    augment=Augment(shift=0.05, rotate_degrees=5),
    search={"full.lr": LogUniform(1e-2, 5e-2), "augment.shift": Uniform(0.0, 0.1)},
    registers=True,
    ema_decay=0.5,
    feature_views=2,
)
'''


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the path, outside the repository, with the recipe `tiny_lab.small_net`."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "tiny_lab").mkdir()
    (folder / "tiny_lab" / "__init__.py").touch()
    (folder / "tiny_lab" / "small_net.py").write_text(SMALL_NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="session")
def tiny_table(tmp_path_factory: pytest.TempPathFactory, tiny_tree: Path) -> Path:
    """The table of the tiny tree's split, both parts, as workers read it."""
    from muralab.data.mura import read_index
    from muralab.data.splits import split_index
    from muralab.trial import write_table

    path = tmp_path_factory.mktemp("table") / "split.csv"
    index = read_index(tiny_tree, "all")
    write_table(path, index, dict(split_index(index).items()))
    return path


@pytest.fixture
def build_spec(tiny_table: Path, lab: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildSpec:
    """A function of (recipe, fields) that returns a trial on the tiny tree, in this test's own folder."""
    from muralab.trial import TrialSpec

    def build(recipe: str = "tiny_lab.small_net", **fields: Any) -> TrialSpec:
        own = {"name": "trial", "table": str(tiny_table), "cache_folder": str(tmp_path / "cache")}
        return TrialSpec(**{"recipe": recipe, "folder": str(tmp_path / "trial"), **own, **fields})

    return build


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database for tests to copy, since creating the tables takes 2 s."""
    from muralab.tracking import open_store

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    open_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def tracking_server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server with proxied artifacts, on a free port."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts",
               ]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            yield _answering(f"http://127.0.0.1:{port}", process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # a normal shutdown takes 9 s
            process.wait(30)


def _answering(uri: str, process: subprocess.Popen[bytes], wait_s: float = 450.0) -> str:
    from muralab.errors import StoreError
    from muralab.tracking import open_store

    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            open_store(uri, timeout_s=5)
        except StoreError:
            time.sleep(0.3)
        else:
            return uri
    raise RuntimeError(f"{uri} did not start")


@pytest.fixture(scope="session")
def pacs_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of 30 synthetic DICOM pictures as a PACS exports them; the table of labels lies beside it."""
    from muralab.demo.pacs import write_export

    return write_export(tmp_path_factory.mktemp("pacs") / "data", n_images=30)
