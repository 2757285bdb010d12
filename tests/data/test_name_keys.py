"""Keys of coded names: one per data set, found again after a move, shared between machines, for the owner's eyes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from muralab.data.local_files import find_files, missing_files
from muralab.data.mura import read_index
from muralab.data.name_keys import find_key, known_keys, write_names, write_private
from muralab.data.names import code_names, new_key
from muralab.errors import DataError, SettingsError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_data_set_keeps_its_key(tiny_tree: Path, tmp_path: Path) -> None:
    index = read_index(tiny_tree, "all")
    keys = {find_key(tmp_path, tiny_tree, images).id for images in (index, index, None)}
    assert keys == {key.id for key in known_keys(tmp_path)}


def test_only_the_owner_can_read_keys_and_names(tiny_tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "names"
    key = find_key(folder, tiny_tree)
    table = write_names(folder, key, code_names(read_index(tiny_tree, "all"), key, keep=True))
    assert [mode(path) for path in (folder, folder / f"{key.id}.json", table)] == [0o700, 0o600, 0o600]
    assert set(pd.read_csv(table)["real_patient"]) == set(read_index(tiny_tree, "all")["patient"])


def test_two_data_sets_with_the_same_names_have_two_keys(easy_tree: Path, tiny_tree: Path, tmp_path: Path) -> None:
    keys = [find_key(tmp_path, root, read_index(root, "wrist")).id for root in (easy_tree, tiny_tree)]
    assert len(set(keys)) == 2


def test_a_moved_data_set_is_recognised(easy_tree: Path, tmp_path: Path) -> None:
    key = find_key(tmp_path / "names", easy_tree, read_index(easy_tree, "wrist"))
    moved = Path(shutil.copytree(easy_tree, tmp_path / "moved"))
    assert find_key(tmp_path / "names", moved, read_index(moved, "wrist")).id == key.id


def test_machines_share_a_key_file(tiny_tree: Path, tmp_path: Path) -> None:
    shared = tmp_path / "team.key"
    keys = [find_key(tmp_path / machine, tiny_tree, shared=shared) for machine in ("one", "two")]
    assert keys[0] == keys[1] == find_key(tmp_path / "one", tiny_tree)
    assert mode(shared) == 0o640  # readable by the team's group, in a folder that is the team's


def test_a_shared_key_replaces_the_own_one(tiny_tree: Path, tmp_path: Path) -> None:
    own = find_key(tmp_path, tiny_tree)
    shared = find_key(tmp_path, tiny_tree, shared=tmp_path / "team.key")
    assert find_key(tmp_path, tiny_tree) == shared != own
    assert {key.id for key in known_keys(tmp_path)} == {own.id, shared.id}  # runs that it coded can still be read


@pytest.mark.parametrize("content", ["", "{}", '{"secret": "00", "roots": [], "sample": []}', "[1]"])
def test_another_file_is_no_key(tiny_tree: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "notes.txt").write_text(content)
    with pytest.raises(SettingsError, match=r"names_key=.*notes.txt is not a key file"):
        find_key(tmp_path / "names", tiny_tree, shared=tmp_path / "notes.txt")


def test_a_damaged_key_is_named(tiny_tree: Path, tmp_path: Path) -> None:
    file = tmp_path / f"{find_key(tmp_path, tiny_tree).id}.json"
    file.write_text("{")
    with pytest.raises(DataError, match=rf"The key file .*{file.name} is damaged"):
        find_key(tmp_path, tiny_tree)


def test_a_table_with_names_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a file")
    with pytest.raises(DataError, match=r"The table .*run\.csv cannot be written: (File exists|Not a directory)"):
        write_private(tmp_path / "labels" / "run.csv", "study\n")


def test_files_are_found_by_their_codes(tiny_tree: Path, tmp_path: Path) -> None:
    index = read_index(tiny_tree, "all")
    coded = code_names(index, find_key(tmp_path, tiny_tree))[["image"]]
    found = find_files(coded, tiny_tree, tmp_path)
    assert found["path"].tolist() == index["path"].tolist()
    assert missing_files(found) == []


def test_files_of_a_key_on_another_machine_are_not_found(tiny_tree: Path, tmp_path: Path) -> None:
    coded = code_names(read_index(tiny_tree, "all"), new_key())
    with pytest.raises(DataError, match=r"codes of a key that is not on this machine \(0 keys in"):
        find_files(coded, tiny_tree, tmp_path)


def test_files_of_a_missing_data_set_are_missing(tiny_tree: Path, tmp_path: Path) -> None:
    coded = code_names(read_index(tiny_tree, "all"), new_key())
    assert len(missing_files(find_files(coded, tmp_path / "nowhere", tmp_path))) == len(coded)
