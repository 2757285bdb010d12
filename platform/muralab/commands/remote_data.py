"""Data sets that a command names by a URI, copied to this machine before anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from muralab.commands.session import Session
from muralab.config.commands import ExploreConfig
from muralab.config.training_options import TrainingOptions
from muralab.data.mirror import mirror_data
from muralab.storage_uri import is_uri

Options = TypeVar("Options", bound=TrainingOptions | ExploreConfig)


def fetch_data(data: str, part: str, columns: Mapping[str, str], session: Session) -> str:
    """A data set's path on this machine; one that a URI names is downloaded, as far as it is not here.

    Args:
        data: a path, `demo` or a URI.
        part: that is needed.
        columns: those of a manifest's columns that have other names.
        session: of the command.

    Raises:
        MuraLabError: it cannot be downloaded.
    """
    if not is_uri(data):
        return data
    return str(mirror_data(data, part, session.cache, session.progress, columns))


def with_fetched_data(options: Options, session: Session) -> Options:
    """The options of a command, with the path of `fetch_data` as its data.

    Raises:
        MuraLabError: it cannot be downloaded.
    """
    return replace(options, data=fetch_data(options.data, options.part, options.columns, session))
