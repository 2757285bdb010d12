"""`sync`: write to the tracking store what it did not take while an earlier command ran."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from muralab.commands.session import announcing
from muralab.config.commands import SyncConfig
from muralab.config.environment import Environment
from muralab.console import build_console
from muralab.errors import StoreError, numbered
from muralab.redaction import redact
from muralab.tracking import close_dead_runs, open_store
from muralab.tracking.refusals import refusal_lines
from muralab.tracking.replay import Replayed, left_journals, replay_journals


def run(config: SyncConfig, environment: Environment) -> None:
    """Write all journals of the store, also what it has refused before.

    Raises:
        StoreError: the store does not answer, or refuses something again; names all of it.
    """
    console = build_console()
    with announcing(console):
        store = open_store(environment.tracking_uri, registry_uri=environment.registry_uri)
        replayed = replay_journals(store, environment.journals, refused=True)
        close_dead_runs(store)
        for one in replayed:
            console.print(str(one), highlight=False, markup=False, soft_wrap=True)
        if config.discard:
            for one in replayed:
                shutil.rmtree(one.folder, ignore_errors=True)
        others = other_stores(environment)
        for line in others:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        if not replayed and not others:
            console.print(f"Nothing waits for {redact(store.uri)}.", highlight=False, markup=False, soft_wrap=True)
        check_refused(replayed, discarded=config.discard)


def other_stores(environment: Environment) -> list[str]:
    """A line for each journal that waits for another store, or for its own process to end."""
    own = redact(environment.tracking_uri)
    return [
        f"{one.folder}: {one.waiting + one.refused} entries of `{one.command}` wait for {one.store}"
        + (": set MLFLOW_TRACKING_URI to it." if one.store != own else ", which the running command writes.")
        for one in left_journals(environment.journals)
        if one.waiting
    ]


def check_refused(replayed: Sequence[Replayed], *, discarded: bool) -> None:
    """Raise what the store refused again, unless it has been discarded."""
    refusals = [refusal for one in replayed for refusal in one.refusals]
    if refusals and not discarded:
        heading = f"The tracking store refused {len(refusals)} items again:"
        raise StoreError(
            f"{numbered(heading, refusal_lines(refusals))}\nFix that and repeat `muralab sync`, or give them up with "
            "`muralab sync --discard true`."
        )
