"""Which study a picture belongs to: by its header wherever the file lies, or else by its folder."""

from __future__ import annotations

import pytest

from muralab.data.headers import Header
from muralab.data.studies import folder_study, is_mura_study, name_studies, patient_folder, study_keys
from muralab.errors import DataError, SettingsError


def header(study: str = "1.2", patient: str = "a", **more: str) -> Header:
    return Header(study=study, patient=patient, **more)


def studies(found: dict[str, Header | None], **options: str) -> dict[str, str]:
    return dict(zip(found, name_studies(list(found), list(found.values()), **options)))


@pytest.mark.parametrize(
    ("name", "study"),
    [
        ("train/XR_WRIST/patient00001/study1_positive/image1.png", "train/XR_WRIST/patient00001/study1_positive"),
        ("XR_HAND/patient00001/study2_negative/raw/a.png", "XR_HAND/patient00001/study2_negative"),
        ("ward/case 7/a.png", "ward/case 7"),
        ("a.png", "."),
    ],
)
def test_without_a_header_a_study_is_the_study_folder_of_a_mura_tree_or_else_the_folder(name, study):
    assert folder_study(name) == study


def test_paths_of_a_mura_tree_name_patient_and_study():
    assert patient_folder("train/XR_HAND/patient00001/study2_negative/a.png") == "patient00001"
    assert patient_folder("ward/a.png") == ""
    assert is_mura_study("/data/train/XR_HAND/patient00001/study2_negative")
    assert not is_mura_study("/data/train/XR_HAND/patient00001")


def test_series_folders_of_one_study_are_one_study():
    found = {f"PA1/ST1/SE{n}/IM1": header() for n in range(3)} | {"PA1/ST2/SE1/IM1": header("1.3")}
    assert list(studies(found).values()) == ["PA1/ST1"] * 3 + ["PA1/ST2/SE1"]


def test_a_study_in_folders_that_it_shares_is_named_by_its_uid():
    found = {"a/1": header(), "b/1": header(), "c/1": header("1.3"), "c/2": header("1.4")}
    assert studies(found) == {"a/1": "1.2", "b/1": "1.2", "c/1": "1.3", "c/2": "1.4"}


def test_patients_that_share_a_uid_are_two_studies_and_not_named():
    found = studies({"s/1": header(patient="Jane"), "s/2": header(patient="John")})
    assert found == {"s/1": "1.2 (1)", "s/2": "1.2 (2)"}


@pytest.mark.parametrize("more", [{"date": "20200101"}, {"date": "20200101", "accession": ""}])
def test_an_empty_uid_never_merges_two_patients(more):
    found = studies({f"IM{n}": header("", patient, **more) for n, patient in enumerate("abc")})
    assert len(set(found.values())) == 3
    assert not set("abc") & {name.split()[-1] for name in found.values()}


def test_without_a_uid_a_study_is_one_date_and_accession_number_of_a_patient():
    first, second = header("", date="20200101", accession="A1"), header("", date="20200101", accession="A2")
    found = studies({"1": first, "2": first, "3": second})
    assert found["1"] == found["2"] != found["3"]


def test_one_patient_number_of_two_hospitals_is_two_patients():
    found = studies({"1": header("", issuer="north"), "2": header("", issuer="south")})
    assert len(set(found.values())) == 2


def test_a_date_alone_names_no_study():
    assert study_keys([header("", "", date="20200101")]) == [None]


def test_a_view_without_a_patient_stays_with_its_study():
    found = studies({"a": header(patient="ada"), "b": header(patient=""), "c": header("1.3", "bob")})
    assert found == {"a": "1.2", "b": "1.2", "c": "1.3"}


def test_a_picture_without_a_header_is_not_averaged_with_its_folders_study():
    assert studies({"s/1.dcm": header(), "s/1.png": None}) == {"s/1.dcm": "1.2", "s/1.png": "s"}


def test_by_folder_studies_of_one_folder_are_separated_and_folders_are_not_merged():
    found = {"a/1": header(), "a/2": header("1.3"), "a/x.png": None, "b/1": header(), "b/2": header()}
    expected = {"a/1": "a/1.2", "a/2": "a/1.3", "a/x.png": "a", "b/1": "b", "b/2": "b"}
    assert studies(found, study="folder") == expected


def test_by_file_each_picture_is_a_study():
    assert studies({"1": header(), "2": header()}, study="file") == {"1": "1", "2": "2"}


def test_a_flat_folder_of_pictures_without_headers_is_refused():
    with pytest.raises(DataError, match=r"2 pictures lie directly in /x, such as 1\.png, .*study=file .*study=folder"):
        studies({"1.png": None, "2.png": None, "3": header()}, where="/x")


def test_one_picture_without_a_header_is_a_study():
    assert studies({"1.png": None, "2": header(), "3": header()}) == {"1.png": ".", "2": "1.2", "3": "1.2"}


def test_an_unknown_grouping_names_the_known_ones():
    with pytest.raises(SettingsError, match=r"study=fiel: expected auto or folder or file\. Did you mean 'file'"):
        studies({"1": header()}, study="fiel")
