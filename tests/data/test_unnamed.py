"""A list or manifest that is older than its folders says what it does not name."""

from __future__ import annotations

from pathlib import Path

from muralab.data.unnamed import unnamed_note
from tests.fixtures.payloads import valid_files

PNG = valid_files()["png"]


def test_pictures_beside_those_of_a_table_are_counted_and_named(tmp_path):
    for name in ("s1/1.png", "s1/added", "s1/1.heat.png", "s1/.hidden.png", "s1/notes.png.txt", "s2/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"words" if name.endswith("txt") else PNG)
    (note,) = unnamed_note(Path("/x/m.csv"), [f"{tmp_path}/s1/1.png"])
    assert note.splitlines() == [
        "m.csv does not name 1 pictures in the folders of its images; they are not used:",
        f"  1. {tmp_path}/s1/added",
    ]
    assert unnamed_note(Path("/x/m.csv"), [f"{tmp_path}/s1/1.png", f"{tmp_path}/s1/added", f"{tmp_path}/no/1"]) == []
