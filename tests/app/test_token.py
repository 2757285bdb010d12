"""Contents of a token file."""

from __future__ import annotations

import pytest

from muralab.app.token import read_token_file
from muralab.errors import SettingsError


def test_the_token_is_the_content_without_white_space(tmp_path):
    (tmp_path / "token").write_text(" secret\n")
    assert read_token_file(tmp_path / "token") == "secret"


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo", b"one two", b"one\x00two", "wörd".encode()])
def test_a_token_that_no_header_can_carry_is_refused(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError, match=r"token_file=.*/token: expected one word, such as `openssl"):
        read_token_file(tmp_path / "token")


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_missing_or_undecodable_file_is_named(tmp_path, content):
    if content:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError, match=r"token_file=.*/token cannot be read"):
        read_token_file(tmp_path / "token")
