"""Labels from a table of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from muralab.data.labels import read_labels
from muralab.errors import DataError


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "labels.csv").write_text(text, encoding=encoding)
    return folder / "labels.csv"


def picture(study: str = "1.2", accession: str = "A1", patient: str = "p1", image: str = "x.dcm") -> dict[str, str]:
    return {"study": study, "accession": accession, "patient": patient, "image": image}


@pytest.mark.parametrize(
    ("header", "value", "key"),
    [
        ("StudyInstanceUID,label", "1.2", "study"),
        ("study,label", "1.2", "study"),
        ("Accession Number,label", "A1", "accession"),
        ("PatientID,abnormal", "p1", "patient"),
        ("file,label", "x.dcm", "image"),
    ],
)
def test_labels_are_joined_by_what_the_table_has(tmp_path, header, value, key):
    joined = read_labels(write(tmp_path, f"{header}\n{value},positive\nother,0\n")).join([picture()])
    assert (joined.labels, joined.key, joined.unmatched) == ([1], key, ["other"])


def test_the_most_exact_key_that_matches_is_used_for_all(tmp_path):
    table = read_labels(write(tmp_path, "study,accession,label\n9.9,A1,1\n9.8,A2,0\n"))
    joined = table.join([picture(), picture("1.3", "A2"), picture("1.4", "A3")])
    assert (joined.labels, joined.key) == ([1, 0, None], "accession")


def test_a_patients_label_is_not_taken_for_a_study_that_the_table_does_not_name(tmp_path):
    joined = read_labels(write(tmp_path, "study,patient,label\n1.2,p1,1\n")).join([picture(), picture("1.3")])
    assert joined.labels == [1, None]


def test_a_spreadsheet_of_a_german_locale_is_read(tmp_path):
    text = "Auftrag;Befund\nA1;abnormal\n"
    table = read_labels(write(tmp_path, text, "utf-8-sig"), {"accession": "Auftrag", "label": "Befund"})
    assert table.join([picture()]).labels == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study,label\n1.2,maybe\n", r"1 rows of .*have no usable label:\n  1\. row 2: 'maybe' is not a label"),
        ("study,finding\n1.2,1\n", r"no column label: give columns=label:<name>\. It has: study, finding"),
        ("name,label\n1.2,1\n", "no column study, accession, patient or image"),
        ("study,label\n1.2,1\n1.2,0\n", r"gives 1 keys two labels:\n  1\. study 1\.2"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_labels(write(tmp_path, text))


def test_an_unknown_column_is_named(tmp_path):
    with pytest.raises(DataError, match=r"There is no column 'Befunt'\. Did you mean 'Befund'"):
        read_labels(write(tmp_path, "study,Befund\n1,1\n"), {"label": "Befunt"})


def test_labels_of_other_pictures_show_both_sides(tmp_path):
    table = read_labels(write(tmp_path, "study,label\n9.9,1\n"))
    with pytest.raises(DataError, match=r"study: the table has 9\.9 \.\.\., the pictures have 1\.2 \.\.\."):
        table.join([picture()])


def test_rows_without_a_label_label_nothing(tmp_path):
    table = read_labels(write(tmp_path, "study,label\n1.2,\n1.3,0\n"))
    assert table.join([picture(), picture("1.3")]).labels == [None, 0]
