"""Codes that stand for the names of patients, studies and images in everything that is logged.

A code is a keyed digest (BLAKE2b): equal names of a data set have equal codes in all of its runs, and without the key
nobody can find out which name a code stands for, not even by trying all names. Each data set has a key of its own.
Names of generated images are not coded.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

NAMED = ("image", "study", "patient")
"""Columns of an index whose values are names."""
REAL = {column: f"real_{column}" for column in NAMED}
"""Column -> the column that keeps the names of a table with codes. These columns stay on this machine."""
LOCAL_COLUMNS = (*REAL.values(), "path")
"""Columns that are never logged."""
SECRET_BYTES = 32
MIN_DIGITS = 4
"""Digits of the shortest number that is taken for a name in a text."""
_DIGEST_BYTES = 10
_CODE = re.compile(r"[isp]-[a-z2-7]{16}")


@dataclass(frozen=True, kw_only=True)
class NameKey:
    """The secret of one data set's codes."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Identifies the key, and shows nothing of it: 12 hex characters."""
        return hashlib.blake2b(self.secret, digest_size=6, person=b"muralab key id").hexdigest()

    def code(self, kind: str, name: str) -> str:
        """The code of a name: 80 bits after the first letter of its kind, such as `p-kq3v...` of a patient.

        Args:
            kind: `image`, `study` or `patient`.
            name: as it is in the data set.
        """
        text = f"{kind}\0{name}".encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(text, key=self.secret, digest_size=_DIGEST_BYTES)
        return f"{kind[0]}-{base64.b32encode(digest.digest()).decode().lower()}"

    def hide(self, text: str, names: Iterable[tuple[str, str]]) -> str:
        """A text with the codes of some names in their place.

        Args:
            text: that quotes them.
            names: (kind, name) of each; a name that contains another one is replaced first.
        """
        for kind, name in sorted(set(names), key=lambda pair: -len(pair[1])):
            if any(letter.isalnum() for letter in name):
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", self.code(kind, name), text)
        return text


def new_key() -> NameKey:
    """A key that nobody has."""
    return NameKey(secret=secrets.token_bytes(SECRET_BYTES))


def code_names(table: pd.DataFrame, key: NameKey | None, *, keep: bool = False) -> pd.DataFrame:
    """A table with codes instead of names; the table itself without a key, or where it has codes.

    Args:
        table: any of the columns `NAMED`; its order stays.
        key: of the data set; None for generated images.
        keep: whether the names are kept in the columns of `REAL`, for what never leaves the machine.
    """
    if key is None or are_coded(table):
        return table
    columns = [column for column in NAMED if column in table]
    real = {REAL[column]: table[column] for column in columns} if keep else {}
    return table.assign(**real, **{column: _code_column(table[column], column, key) for column in columns})


def _code_column(names: pd.Series, kind: str, key: NameKey) -> pd.Series:
    codes = {name: key.code(kind, str(name)) for name in names.unique()}
    return names.map(codes)


def are_coded(table: pd.DataFrame) -> bool:
    """Whether a table's names are codes."""
    column = next((column for column in NAMED if column in table), None)
    return column is not None and len(table) > 0 and is_code(str(table[column].iloc[0]))


def is_code(name: str) -> bool:
    """Whether a name has the form of a code."""
    return _CODE.fullmatch(name) is not None


def with_real_names(table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
    """Rows of an index with the index's own names, for digests that do not depend on a key.

    Args:
        table: one row per image, with `image` and others of the columns `NAMED`.
        index: of these images, with the columns of `REAL` where it has codes.
    """
    if REAL["image"] not in index or table.empty:
        return table
    real = index.set_index("image")[list(REAL.values())].loc[table["image"]]
    columns = [column for column in NAMED if column in table]
    return table.assign(**{column: real[REAL[column]].to_numpy() for column in columns})


def hide_names_of(index: pd.DataFrame, text: str, key: NameKey | None) -> str:
    """A text, such as an error's, with codes instead of all names of an index; the text itself without a key.

    Args:
        index: with its own names, or with codes that keep them (`REAL`).
        text: that may quote names and paths.
        key: of the index.
    """
    if key is None:
        return text
    columns = {kind: index[column] if column in index else index[kind] for kind, column in REAL.items()}
    names = ((kind, str(name)) for kind, values in columns.items() for name in values.unique())
    quoted = [(kind, name) for kind, name in names if name in text and not (name.isdigit() and len(name) < MIN_DIGITS)]
    return key.hide(text, quoted)
