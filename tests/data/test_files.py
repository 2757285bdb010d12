"""Image files: a broken one is a fact about it, a failing disk is not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from muralab.data.audit.report import audit_images
from muralab.data.cache import open_cache
from muralab.data.files import ImageFile, read_images, read_square
from muralab.data.images.decode import to_square
from muralab.data.mura import read_index
from muralab.errors import DataError, ImageError

GREY = np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)


def test_a_square_is_read_from_a_file(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), GREY)
    np.testing.assert_array_equal(read_square(tmp_path / "a.png", 32), to_square(GREY, 32))


def test_a_missing_file_is_given_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_square(tmp_path / "none.png", 32)


def test_every_file_is_passed_to_every_consumer_with_its_position(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), GREY)
    (tmp_path / "bad.png").write_bytes(b"")
    paths = [str(tmp_path / name) for name in ("good.png", "bad.png", "none.png")] * 20
    first: dict[int, ImageFile] = {}
    second: dict[int, str] = {}
    read_images(paths, [first.__setitem__, lambda position, image: second.update({position: image.reason})])
    assert [first[position].path for position in range(60)] == paths
    assert [second[position] for position in range(3)] == ["", "zero bytes", "No such file or directory"]
    assert [first[position].data is None for position in range(3)] == [False, False, True]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tiny_tree: Path) -> pytest.MonkeyPatch:
    """The disk fails for one image until `undo` is called."""
    broken, read = read_index(tiny_tree, "wrist")["path"].iloc[0], Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        if str(self) == str(broken):
            raise OSError(5, "Input/output error")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return monkeypatch


def test_a_failing_disk_stops_the_cache_and_is_not_stored(
    failing: pytest.MonkeyPatch, tiny_tree: Path, tmp_path: Path
) -> None:
    table = read_index(tiny_tree, "wrist")
    with pytest.raises(DataError, match=r"image1\.png cannot be read: Input/output error\. Fix that"):
        open_cache(table, size=32, folder=tmp_path)
    failing.undo()
    assert open_cache(table, size=32, folder=tmp_path).unreadable == {}


def test_a_failing_disk_stops_the_audit_and_is_not_stored(
    failing: pytest.MonkeyPatch, tiny_tree: Path, tmp_path: Path
) -> None:
    table = read_index(tiny_tree, "wrist")
    with pytest.raises(DataError, match="Input/output error"):
        audit_images(table, folder=tmp_path)
    failing.undo()
    assert audit_images(table, folder=tmp_path).counts.get("unreadable", 0) == 0
