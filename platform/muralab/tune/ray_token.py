"""The token of an existing Ray cluster: used where this machine has one, and never invented."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path

TOKEN_FILE = Path(".ray") / "auth_token"
"""Below the home folder: where Ray looks for a token last."""
ADVICE = (
    "Give the token that the cluster was started with: RAY_AUTH_TOKEN=<token>, RAY_AUTH_TOKEN_PATH=<file>, or "
    "~/.ray/auth_token."
)


def use_token(environment: MutableMapping[str, str]) -> None:
    """Have Ray send the cluster's token if this machine has it; with an explicit address it would not do so by itself.

    Args:
        environment: RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH are read, RAY_AUTH_MODE is set unless it is given.
    """
    if not why_no_token(environment):
        environment.setdefault("RAY_AUTH_MODE", "token")


def why_no_token(environment: Mapping[str, str]) -> str:
    """Why this machine has no token of a cluster, as the rest of a sentence; empty if it has one.

    Args:
        environment: names the token, or the file that Ray would read.
    """
    none, named = "this machine has none", environment.get("RAY_AUTH_TOKEN_PATH")
    if environment.get("RAY_AUTH_TOKEN"):
        return ""
    try:
        file = Path(named) if named else Path.home() / TOKEN_FILE
    except RuntimeError:  # there is no home folder
        return none
    try:
        return "" if file.read_bytes().strip() else f"{file} is empty"
    except FileNotFoundError:
        return f"RAY_AUTH_TOKEN_PATH={file} does not exist" if named else none
    except OSError as error:
        return f"{file} cannot be read ({error.strerror})"


def explain_no_token(environment: Mapping[str, str]) -> str:
    """What is wrong with this machine's token, in one or two sentences, when a cluster refuses it.

    Args:
        environment: of the command.
    """
    if reason := why_no_token(environment):
        return f"the cluster asks for a token, and {reason}. {ADVICE}"
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return (
            "the cluster asks for a token, and RAY_AUTH_MODE=disabled keeps this machine from sending its own. Unset "
            "RAY_AUTH_MODE, or set it to token."
        )
    return f"the cluster refuses this machine's token. {ADVICE}"
