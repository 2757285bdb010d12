"""Data sets that a URI names: what is fetched, what is not fetched again, and what is wrong with a URI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muralab.data.manifest import is_manifest
from muralab.data.mirror import DATA, DOWNLOADS, mirror_data, uri_of
from muralab.data.mura import parts_of, read_index
from muralab.data.source import DatasetSource
from muralab.errors import DataError, DiskError, SettingsError
from tests.fixtures.manifests import rows_of, write_csv


class Counted:
    """Progress that counts what was fetched."""

    def __init__(self) -> None:
        self.fetched: dict[str, int] = {}

    def __call__(self, title: str) -> Callable[[int, int], None]:
        def note(done: int, _total: int) -> None:
            self.fetched[title] = done

        return note

    @property
    def images(self) -> int:
        return self.fetched.pop("fetching images", 0)


@pytest.fixture
def bucket(easy_tree: Path, tmp_path: Path) -> Path:
    """A copy of a MURA tree in a folder that is opened by a URI, with a second part."""
    root = shutil.copytree(easy_tree, tmp_path / "bucket" / "MURA-v1.1")
    shutil.copytree(root / "train" / "XR_WRIST", root / "train" / "XR_HAND")
    return root.parent


def fetch(bucket: Path, cache: Path, **values: Any) -> tuple[Path, int]:
    progress = Counted()
    path = mirror_data(f"file://{bucket}", values.pop("part", "wrist"), cache, progress, **values)
    return path, progress.images


def test_one_part_of_a_tree_is_fetched_once(bucket: Path, tmp_path: Path) -> None:
    original = read_index(bucket / "MURA-v1.1", "wrist")
    root, n_fetched = fetch(bucket, tmp_path / "cache")
    assert n_fetched == len(original)
    copy = read_index(root, "wrist")
    assert copy.drop(columns="path").equals(original.drop(columns="path"))
    assert [Path(path).read_bytes() for path in copy["path"]] == [Path(path).read_bytes() for path in original["path"]]
    assert parts_of(root) == ["hand", "wrist"]
    assert not any((root / "train" / "XR_HAND").iterdir())
    assert fetch(bucket, tmp_path / "cache") == (root, 0)
    assert uri_of(str(root)) == f"file://{bucket}"
    assert uri_of(str(bucket / "MURA-v1.1")) == ""


def test_files_changed_remotely_or_locally_are_downloaded_again(bucket: Path, tmp_path: Path) -> None:
    root, _ = fetch(bucket, tmp_path / "cache")
    changed, damaged, removed, gone = sorted((bucket / "MURA-v1.1" / "train" / "XR_WRIST").rglob("*.png"))[:4]
    content = changed.read_bytes()
    changed.write_bytes(content + b"x")
    os.utime(changed, (1, 1))
    here = {path: root / path.relative_to(bucket / "MURA-v1.1") for path in (changed, damaged, removed, gone)}
    here[damaged].write_bytes(b"0" * damaged.stat().st_size)
    here[removed].unlink()
    gone.unlink()
    assert fetch(bucket, tmp_path / "cache") == (root, 3)
    assert here[changed].read_bytes() == content + b"x"
    assert here[damaged].read_bytes() == damaged.read_bytes()
    assert here[removed].read_bytes() == removed.read_bytes()
    assert not here[gone].exists()


def test_an_interrupted_download_resumes(bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from muralab.storage import Storage

    total, seen, download = len(read_index(bucket / "MURA-v1.1", "wrist")), [], Storage.download

    def interrupted(self: Storage, name: str, local: Path) -> None:
        seen.append(name)
        if len(seen) == total // 2:
            raise KeyboardInterrupt
        download(self, name, local)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(bucket, tmp_path / "cache")
    _, n_fetched = fetch(bucket, tmp_path / "cache")
    assert 0 < n_fetched < total


def test_of_a_manifest_only_its_images_are_fetched(bucket: Path, tmp_path: Path) -> None:
    rows = [row for row in rows_of(bucket / "MURA-v1.1") if row["split"] == "train"]
    write_csv(bucket / "MURA-v1.1" / "ours.csv", [{"path": row.pop("image"), **row} for row in rows])
    progress = Counted()
    path = mirror_data(f"file://{bucket}/MURA-v1.1/ours.csv", "wrist", tmp_path / "cache", progress, {"image": "path"})
    assert progress.images == len(rows)
    assert len(list(path.parent.rglob("*.png"))) == len(rows)
    source = DatasetSource(data=str(path), part="wrist", columns={"image": "path"})
    assert len(source.index) == len(rows)


def test_names_that_leave_the_folder_are_not_fetched(bucket: Path, tmp_path: Path) -> None:
    row = {"image": "../outside.png", "label": 1, "patient": "p"}
    (bucket / "outside.png").write_bytes(b"")
    write_csv(bucket / "MURA-v1.1" / "ours.csv", [row, {**row, "image": "/etc/hostname"}])
    progress = Counted()
    path = mirror_data(f"file://{bucket}/MURA-v1.1/ours.csv", "wrist", tmp_path / "cache", progress)
    assert progress.images == 0
    assert not (path.parent.parent / "outside.png").exists()


@pytest.mark.parametrize(
    ("uri", "part", "message"),
    [
        ("file://{bucket}", "wirst", r"has no part 'wirst'. It has: hand, wrist \(or all\)"),
        ("file://{bucket}/MURA-v1.1/train", "wrist", r"No MURA tree in file://.*/train.*XR_HAND, XR_WRIST"),
        ("file://{bucket}/nothing", "wrist", r"data=file://.*/nothing: there is nothing"),
        ("file://{bucket}/nothing.csv", "wrist", r"data=file://.*: there is no file nothing.csv"),
    ],
)
def test_missing_data_is_reported(bucket: Path, tmp_path: Path, uri: str, part: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        mirror_data(uri.format(bucket=bucket), part, tmp_path / "cache", Counted())


def test_a_small_disk_is_found_before_fetching(bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muralab.data.mirror.free_bytes", lambda _: 10)
    with pytest.raises(DiskError, match=r"files to download take 0\.0 GiB"):
        fetch(bucket, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob(f"{DATA}/**/*.png"))


def test_lists_and_parts_that_are_gone_are_forgotten(bucket: Path, tmp_path: Path) -> None:
    tree = bucket / "MURA-v1.1"
    images = sorted(path.relative_to(bucket).as_posix() for path in (tree / "train" / "XR_WRIST").rglob("*.png"))
    (tree / "train_image_paths.csv").write_text("\n".join(images[:-1]) + "\n")
    root, _ = fetch(bucket, tmp_path / "cache", part="all")
    assert (root / "train_image_paths.csv").is_file()
    assert parts_of(root) == ["hand", "wrist"]
    (tree / "train_image_paths.csv").unlink()
    shutil.rmtree(tree / "train" / "XR_HAND")
    fetch(bucket, tmp_path / "cache", part="all")
    assert not (root / "train_image_paths.csv").exists()
    assert parts_of(root) == ["wrist"]


@pytest.mark.parametrize(
    ("data", "is_table"),
    [
        ("s3://lab/rows.csv?scheme=http&endpoint_override=h:8333", True),
        ("s3://lab/rows.PARQUET", True),
        ("s3://lab/MURA-v1.1", False),
        ("s3://lab/MURA-v1.1?endpoint_override=h.csv", False),
    ],
)
def test_a_manifest_is_known_by_the_path_of_its_uri(data: str, is_table: bool) -> None:
    assert is_manifest(data) is is_table


def test_a_uri_is_found_where_the_tree_has_no_folder_of_its_own(bucket: Path, tmp_path: Path) -> None:
    root = mirror_data(f"file://{bucket}/MURA-v1.1", "hand", tmp_path / "cache", Counted())
    assert uri_of(str(root)) == f"file://{bucket}/MURA-v1.1"


@pytest.mark.parametrize("content", ["", "xx", "a,b\n1,2\n", "name,size,modified_ns,digest\nx,y,z,\n", "\xff\x00"])
def test_a_damaged_note_of_what_was_downloaded_costs_a_download(bucket: Path, tmp_path: Path, content: str) -> None:
    root, n_images = fetch(bucket, tmp_path / "cache")
    (note,) = (tmp_path / "cache").rglob(DOWNLOADS)
    note.write_bytes(content.encode("latin-1"))
    assert fetch(bucket, tmp_path / "cache") == (root, n_images)


def test_a_file_may_become_a_folder_and_back(bucket: Path, tmp_path: Path) -> None:
    folder = next((bucket / "MURA-v1.1" / "train" / "XR_WRIST").glob("*/*"))
    fetch(bucket, tmp_path / "cache")
    for _ in range(2):
        (folder / "extra").write_bytes(b"1")
        root, _ = fetch(bucket, tmp_path / "cache")
        copy = root / (folder / "extra").relative_to(bucket / "MURA-v1.1")
        assert copy.is_file()
        (folder / "extra").unlink()
        (folder / "extra").mkdir()
        (folder / "extra" / "inside").write_bytes(b"2")
        fetch(bucket, tmp_path / "cache")
        assert (copy / "inside").read_bytes() == b"2"
        shutil.rmtree(folder / "extra")


def test_an_image_that_is_gone_from_the_store_is_gone_from_the_copy(bucket: Path, tmp_path: Path) -> None:
    rows = rows_of(bucket / "MURA-v1.1")
    write_csv(bucket / "MURA-v1.1" / "my rows.csv", rows)
    uri = f"file://{bucket}/MURA-v1.1/my%20rows.csv"
    path = mirror_data(uri, "wrist", tmp_path / "cache", Counted())
    assert path.name == "my rows.csv"
    gone = str(rows[0]["image"])
    (bucket / "MURA-v1.1" / gone).unlink()
    mirror_data(uri, "wrist", tmp_path / "cache", Counted())
    assert not (path.parent / gone).exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///data/a#b/rows.csv", "in a URI, # ends the path. Write %23 for it"),
        ("file:///data/a?b", r"in a URI, \? ends the path. Write %3F for it"),
        ("file:///data/mit leer", "is not a URI. Write a blank as %20"),
    ],
)
def test_signs_that_a_uri_reads_in_another_way_are_refused(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        mirror_data(uri, "wrist", tmp_path, Counted())
