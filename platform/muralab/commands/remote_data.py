"""Data sets that a command names by a URI, brought to this machine before anything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from muralab.commands.session import Session
from muralab.config.commands import CompareConfig, ExploreConfig, TrainConfig, TuneConfig
from muralab.data.mirror import is_uri, mirror_data

Fetchable = TypeVar("Fetchable", TuneConfig, TrainConfig, CompareConfig, ExploreConfig)


def fetch_data(data: str, part: str, config: Any, session: Session) -> str:
    """A data set's path on this machine: one that a URI names is fetched, as far as it is not here.

    Args:
        data: the option of that name, as it was resolved.
        part: that is needed.
        config: a command's options, with `columns` of a manifest.
        session: of the command.

    Raises:
        MuraLabError: it cannot be fetched.
    """
    if not is_uri(data):
        return data
    return str(mirror_data(data, part, session.cache, session.progress, config.columns))


def with_fetched_data(config: Fetchable, session: Session) -> Fetchable:
    """The options of a command, with the path of `fetch_data` as its data.

    Raises:
        MuraLabError: it cannot be fetched.
    """
    return replace(config, data=fetch_data(config.data, config.part, config, session))
