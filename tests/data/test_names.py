"""Codes of names: equal for equal names, without a way back, and never a reason to lose a row."""

from __future__ import annotations

import pandas as pd
import pytest

from muralab.data.names import NameKey, are_coded, code_names, is_code, new_key, with_real_names
from muralab.data.splits import fingerprint

KEY = NameKey(secret=bytes(range(32)))
TABLE = pd.DataFrame(
    {
        "image": ["a/1.png", "a/2.png", "b/1.png"],
        "study": ["a", "a", "b"],
        "patient": ["Müller, Hans", "Müller, Hans", "007"],
        "label": [1, 1, 0],
        "split": ["test", "test", "train"],
    }
)


def test_equal_names_have_equal_codes_and_others_have_others() -> None:
    coded = code_names(TABLE, KEY)
    assert coded["patient"].tolist()[0] == coded["patient"].tolist()[1] != coded["patient"].tolist()[2]
    assert coded["image"].nunique() == 3
    assert all(is_code(name) for column in ("image", "study", "patient") for name in coded[column])


def test_another_key_or_another_kind_gives_another_code() -> None:
    assert len({KEY.code("patient", "a"), KEY.code("study", "a")[1:], new_key().code("patient", "a")}) == 3


def test_names_are_kept_only_if_asked() -> None:
    assert not [name for name in code_names(TABLE, KEY).columns if name.startswith("real_")]
    assert code_names(TABLE, KEY, keep=True)["real_patient"].tolist() == TABLE["patient"].tolist()


@pytest.mark.parametrize("table", [code_names(TABLE, KEY), TABLE.iloc[:0]], ids=["coded", "empty"])
def test_coding_twice_changes_nothing(table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(code_names(table, KEY), table, check_dtype=False)


def test_without_a_key_names_stay() -> None:
    assert code_names(TABLE, None) is TABLE
    assert not are_coded(TABLE)


def test_the_fingerprint_does_not_depend_on_the_key() -> None:
    kept = [code_names(TABLE, key, keep=True) for key in (KEY, new_key())]
    assert {fingerprint(table) for table in kept} == {fingerprint(TABLE)}
    assert fingerprint(with_real_names(code_names(TABLE, KEY), kept[0])) == fingerprint(TABLE)


def test_names_in_a_text_are_replaced_whole() -> None:
    hidden = KEY.hide("a/1.png of 7 (007) and a/1.png2", [("patient", "007"), ("image", "a/1.png"), ("study", ".")])
    codes = KEY.code("image", "a/1.png"), KEY.code("patient", "007")
    assert hidden == f"{codes[0]} of 7 ({codes[1]}) and a/1.png2"


def test_the_id_of_a_key_is_not_part_of_its_secret() -> None:
    assert KEY.id == NameKey(secret=KEY.secret).id != new_key().id
    assert KEY.id not in KEY.secret.hex()
    assert KEY.secret.hex() not in repr(KEY)
