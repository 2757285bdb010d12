"""Tables as other programs write them are read as text cells, and their numbers as numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from muralab.data.sheet import read_sheet
from muralab.errors import DataError


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_dialect_gives_the_same_cells(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    lines = ["image|site|code", "a.png|Köln|007", 'b.png|"Ulm"|NA', "||"]
    text = end.join(lines).replace("|", separator) + end
    sheet = read_sheet(write(tmp_path / "t.csv", text, encoding))
    assert sheet.cells.to_dict("list") == {"image": ["a.png", "b.png"], "site": ["Köln", "Ulm"], "code": ["007", "NA"]}
    assert sheet.row_numbers.tolist() == [2, 3]


def test_a_stated_separator_is_used_and_its_line_counted(tmp_path: Path) -> None:
    sheet = read_sheet(write(tmp_path / "t.csv", "sep=;\nimage;a,b,c\nx.png;1\n"))
    assert sheet.cells.to_dict("list") == {"image": ["x.png"], "a,b,c": ["1"]}
    assert sheet.row_numbers.tolist() == [3]


def test_cells_keep_separators_and_line_breaks_in_quotes(tmp_path: Path) -> None:
    sheet = read_sheet(write(tmp_path / "t.csv", 'image,note\na.png,"one, two\nthree"\nb.png,x\n'))
    assert sheet.cells["note"].tolist() == ["one, two\nthree", "x"]
    assert sheet.row_numbers.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("text", "ages"),
    [
        ("image;age\na;45,5\nb;1.234,0\nc;\n", [45.5, 1234.0, None]),
        ("image;age;dose\na;45;0,5\nb;1.234;1\nc;NA;2\n", [45.0, 1234.0, None]),
        ("image;age\na;45.5\nb;1.234\nc;n/a\n", [45.5, 1.234, None]),
        ("image,age\na,45.5\nb,1e3\nc,\n", [45.5, 1000.0, None]),
    ],
)
def test_numbers_have_the_decimal_sign_of_their_file(tmp_path: Path, text: str, ages: list[float | None]) -> None:
    values = read_sheet(write(tmp_path / "t.csv", text)).values("age")
    assert [None if pd.isna(value) else value for value in values] == ages


@pytest.mark.parametrize("cells", [["007", "12"], ["Agfa", "1"], ["1,5", "2"], ["", ""]])
def test_codes_and_words_stay_text(tmp_path: Path, cells: list[str]) -> None:
    rows = "".join(f'x,"{cell}"\n' for cell in cells)
    assert read_sheet(write(tmp_path / "t.csv", f"image,device\n{rows}")).values("device").tolist() == cells


def test_parquet_gives_the_cells_of_a_text_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"patient": [1.0, None], "label": [True, False], "age": [40.5, 7.0], "name": [None, "b"]})
    frame.to_parquet(tmp_path / "t.parquet")
    sheet = read_sheet(tmp_path / "t.parquet")
    assert sheet.cells["patient"].tolist() == ["1", ""]
    assert sheet.cells["label"].tolist() == ["True", "False"]
    assert sheet.values("age").tolist() == [40.5, 7.0]
    assert (sheet.cells["name"].tolist(), sheet.row_numbers.tolist()) == (["", "b"], [1, 2])


BAD = {
    "workbook": (b"PK\x03\x04...", r"is a spreadsheet's own file\. Save it as CSV"),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0\0", r"is not a table: expected text \(CSV\) or Parquet"),
    "empty": (b"", "has no header"),
    "parquet": (b"PAR1 and nothing else", "Parquet file .* cannot be read"),
    "bytes": (b"image,label\n\x81\x8d,1\n", "is not text in UTF-8, UTF-16 or Windows-1252"),
    "quote": (b'image,label\na,"1\nb,1\n', "row 2, cannot be read: .* Check the quotes"),
    "long rows": (
        b"image,label\na,1\nb,1,x\nc,0,y\n",
        r"(?s)2 rows of .* have more values .*1\. row 3: 3 values.*quotes",
    ),
    "no name": (b"image,,label\na,7,1\n", "column 2 has values and no name"),
    "twice": (b"image,label,image\na,1,b\n", "column 3 has the name of an earlier one, 'image'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_a_table_is_named_as_what_it_is(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_sheet(tmp_path / "t.csv")


def test_what_the_system_says_is_not_blamed_on_the_content(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The table .* cannot be read: Is a directory\."):
        read_sheet(tmp_path)


def test_a_digest_changes_with_the_file(tmp_path: Path) -> None:
    first, again, other = (read_sheet(write(tmp_path / "t.csv", f"image\n{x}\n")).digest for x in "aab")
    assert first == again != other
