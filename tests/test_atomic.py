"""Atomic writes."""

from __future__ import annotations

import pytest

from muralab.atomic import atomic_path


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_replaced_at_the_end(tmp_path, sync):
    target = tmp_path / "file.json"
    target.write_text("old")
    with atomic_path(target, sync=sync) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "file.json"
    target.write_text("old")

    def stop_halfway() -> None:
        with atomic_path(target) as path:
            path.write_text("half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
