"""Texts as every database takes them."""

from __future__ import annotations

import pytest

from muralab.tracking import RunWriter, Store, read_run
from muralab.tracking.storable import MAX_DESCRIPTION, MAX_RUN_NAME, storable, storable_options
from muralab.tracking.tags import Tag

ODD = "caf\udce9\x00"
"""A file name in Latin-1 as Python reads it, and a NUL."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ODD, "caf\ufffd\ufffd"),
        ({ODD: [ODD, 3]}, {"caf\ufffd\ufffd": ["caf\ufffd\ufffd", 3]}),
        (("ü 😀", None, 0.5), ("ü 😀", None, 0.5)),
    ],
)
def test_characters_that_no_database_takes_are_marked(value: object, expected: object) -> None:
    assert storable(value) == expected


def test_columns_of_limited_length_are_respected() -> None:
    found = storable_options({"run_name": "n" * 300, "description": "d" * 6000, "value": "v" * 6000})
    assert [len(found[key]) for key in ("run_name", "description", "value")] == [MAX_RUN_NAME, MAX_DESCRIPTION, 6000]


def test_a_run_takes_any_text(store: Store) -> None:
    with RunWriter(store) as writer:
        run = writer.start_run(experiment="lab", kind="trial", name="n" * 300, tags={"note": ODD})
        writer.log_params(run, {"value": ODD})
        writer.log_params(run, {"value": ODD})
        writer.log_text(run, ODD, "odd.txt")
        writer.finish(run)
        record = read_run(store, writer.run_id(run))
    assert (record.tags["note"], record.params["value"]) == ("caf\ufffd\ufffd", "caf\ufffd\ufffd")
    assert (len(record.name), record.status, Tag.NOT_LOGGED in record.tags) == (MAX_RUN_NAME, "FINISHED", False)


def test_a_registered_model_takes_any_text(store: Store) -> None:
    store.client.create_registered_model("odd", description="d" * 6000)
    store.client.set_registered_model_tag("odd", "note", ODD)
    found = store.client.get_registered_model("odd")
    assert (len(found.description), found.tags["note"]) == (MAX_DESCRIPTION, "caf\ufffd\ufffd")
