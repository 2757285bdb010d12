"""The audit's result: its texts, its digests, and when it is computed again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from muralab.data.audit.facts import facts_of
from muralab.data.audit.findings import KINDS
from muralab.data.audit.report import audit_images, is_audited
from muralab.data.files import read_image
from muralab.errors import DataError


@pytest.fixture
def unreadable_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """From now on, reading an image is an error."""

    def read_bytes(path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return monkeypatch


def test_the_summary_counts_what_was_read(audit):
    assert audit().summary().startswith("56 images of 28 studies and 28 patients were read and hashed (")


def test_a_second_audit_reads_no_file(audit, positions, copy_file, request):
    copy_file(*positions("train", 1)[:2])
    first = audit()
    request.getfixturevalue("unreadable_disk")
    second = audit()
    assert first.summary() == second.summary()
    assert second.findings["images"].tolist() == first.findings["images"].tolist()


def test_facts_of_decoded_files_replace_reading_them(table, tmp_path, request):
    facts = {path: facts_of(read_image(path)) for path in table["path"]}
    expected = audit_images(table, folder=tmp_path / "read")
    request.getfixturevalue("unreadable_disk")
    assert audit_images(table, folder=tmp_path / "given", facts=facts).digests == expected.digests


def test_an_audit_is_known_from_its_files_and_labels(audit, table, tmp_path):
    audit()
    assert is_audited(table[::-1], folder=tmp_path / "audit")
    assert not is_audited(table.assign(split="test"), folder=tmp_path / "audit")


def test_a_changed_file_is_audited_again(audit, table):
    before = audit()
    Path(table["path"][3]).write_bytes(b"not an image")
    assert audit().counts["unreadable"] == 1
    assert before.counts == dict.fromkeys(KINDS, 0)


def test_the_digest_covers_bytes_and_labels_and_not_the_order(table, tmp_path):
    def digest(rows: pd.DataFrame, name: str) -> str:
        return audit_images(rows, folder=tmp_path / name).digest

    first = digest(table, "a")
    assert digest(table[::-1], "b") == first
    assert digest(table.assign(label=1 - table["label"]), "c") != first
    path = Path(table["path"][0])
    path.write_bytes(path.read_bytes() + b"\0")
    assert digest(table, "d") != first


def test_progress_ends_at_the_number_of_images(table, tmp_path):
    calls: list[tuple[int, int]] = []
    audit_images(table, folder=tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(table), len(table))


def test_an_empty_table_is_rejected(table, tmp_path):
    with pytest.raises(DataError, match="no image to audit"):
        audit_images(table[:0], folder=tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(table, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"audit cannot be written to .*/file: "):
        audit_images(table, folder=tmp_path / "file")
