"""Journals that a command has left: written to their store once it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from muralab.redaction import redact
from muralab.tracking.journal import Content, Journal, find_journals, read_journal
from muralab.tracking.queue import WriteQueue
from muralab.tracking.refusals import Refusal
from muralab.tracking.store import Store
from muralab.tracking.tags import Tag

REPLAY_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What became of a journal."""

    folder: Path
    command: str
    """tune, train, ..."""
    written: int
    """Number of entries."""
    refusals: Sequence[Refusal]
    damaged: int = 0
    """Lines that could not be read."""

    def __str__(self) -> str:
        text = f"Wrote {self.written} entries that an earlier `{self.command}` had kept in {self.folder}."
        if self.damaged:
            text += f" {self.damaged} of its lines were damaged and are lost."
        return text


def replay_journals(store: Store, parent: Path, *, refused: bool = False) -> list[Replayed]:
    """Write what earlier commands have kept for a store, oldest journal first; those of live processes are left alone.

    Writing an entry again that was written before changes nothing.

    Args:
        store: where to write.
        parent: folder of all journals.
        refused: also try entries again that the store has refused.

    Raises:
        StoreError: the store does not answer.
    """
    done = []
    for folder in find_journals(parent):
        with contextlib.suppress(FileNotFoundError):  # another process has just finished it
            content = read_journal(folder)
            left = [number for number in content.entries if refused or number not in content.refused]
            reopened = Journal.reopen(folder) if left and content.store == redact(store.uri) else None
            if reopened is not None:
                done.append(_replay(store, *reopened, refused=refused))
            elif not content.entries and content.store:
                _remove_finished(folder)
    return done


def _replay(store: Store, journal: Journal, content: Content, *, refused: bool) -> Replayed:
    entries = [entry for entry in content.entries.values() if refused or entry.number not in content.refused]
    kept = len(content.entries) > len(entries)
    queue = WriteQueue(store, patience_s=REPLAY_PATIENCE_S, journal=journal)
    queue.replay(entries, content.ids)
    queue.start()
    queue.stop(keep=kept)
    refusals = list(queue.refusals)
    if refused:
        _clear_tags(store, content, queue)
    return Replayed(
        folder=journal.folder,
        command=content.command,
        written=len(entries) - len(refusals),
        refusals=refusals,
        damaged=content.damaged,
    )


def _clear_tags(store: Store, content: Content, queue: WriteQueue) -> None:
    """Clear the note on runs of which everything has been taken by now."""
    runs = {queue.id_of(content.entries[number].run) for number in content.refused if number in content.entries}
    for run_id in runs - {one.run for one in queue.refusals} - {None}:
        with contextlib.suppress(Exception):  # a note, nothing more
            store.impatient().client.set_tag(run_id, Tag.NOT_LOGGED, "")


def _remove_finished(folder: Path) -> None:
    """Remove a journal whose process was killed between its last write and its own clean-up."""
    reopened = Journal.reopen(folder)
    if reopened is not None:
        reopened[0].close(finished=True)


@dataclass(frozen=True, kw_only=True)
class LeftJournal:
    """A journal that waits for its store."""

    folder: Path
    command: str
    store: str
    """Without secrets."""
    waiting: int
    refused: int


def left_journals(parent: Path) -> list[LeftJournal]:
    """All journals in which something waits, oldest first."""
    found = []
    for folder in find_journals(parent):
        content = read_journal(folder)
        if content.entries:
            found.append(
                LeftJournal(
                    folder=folder,
                    command=content.command,
                    store=content.store,
                    waiting=len(content.entries) - len(content.refused),
                    refused=len(content.refused),
                )
            )
    return found
