"""Whether this user may write what a command will write, found before hours are spent on it.

A server with users grants READ on what others have made, unless it is configured otherwise. So a sweep of a part that a
colleague has searched would train to its end and then be refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial

from muralab.errors import SettingsError, StoreError, StoreUnavailableError, numbered
from muralab.redaction import redact
from muralab.tracking.failures import is_forbidden, store_error, store_errors
from muralab.tracking.runs import EXPERIMENT_KIND
from muralab.tracking.store import Store
from muralab.tracking.stored_names import stored_tag
from muralab.tracking.tags import Tag

NOT_IN_A_NAME = re.compile("[/:'\"]")
"""What MLflow does not take in the name of a registered model, or in a search for it."""
MAX_NAME = 250


def require_access(store: Store, experiment: str, model: str | None, *, resumed: bool = False) -> None:
    """Make sure that this user may write into an experiment and add versions to a registered model, where they exist.

    Whoever creates one may do everything with it.

    Args:
        store: where to write.
        experiment: its name.
        model: of the registered model; None: nothing will be registered.
        resumed: whether a run is resumed: it keeps its experiment and its options, so only a new one has others.

    Raises:
        SettingsError: a model cannot have this name.
        StoreError: one is another user's; names both if both are.
    """
    if model is not None:
        check_model_name(model)
    if not store.is_remote:  # a database has no users
        return
    problems = []
    how = "start a new one and " if resumed else ""
    checks: list[Callable[[], None]] = [partial(_check_experiment, store, experiment, how)]
    if model is not None:
        checks.append(partial(_check_model, store, model, how))
    for check in checks:
        try:
            check()
        except StoreUnavailableError:
            raise
        except StoreError as error:
            problems.append(str(error))
    if problems:
        raise StoreError(problems[0] if len(problems) == 1 else numbered("This sweep could not be kept:", problems))


def check_model_name(name: str) -> None:
    """Refuse a name that no registered model can have.

    Raises:
        SettingsError: it holds such a character, or is too long.
    """
    if NOT_IN_A_NAME.search(name) or len(name) > MAX_NAME:
        raise SettingsError(
            f"The registered model would be called {name[:300]}: a name has at most {MAX_NAME} characters and none of "
            "/ : ' \". Rename the part in the data set, or register nothing: register=none."
        )


def _check_experiment(store: Store, name: str, how: str) -> None:
    def write() -> None:
        found = store.client.get_experiment_by_name(name)
        if found is not None:  # its kind is shown as it was
            kind = found.tags.get(Tag.EXPERIMENT_KIND, EXPERIMENT_KIND)
            store.client.set_experiment_tag(found.experiment_id, Tag.EXPERIMENT_KIND, kind)

    advice = f"or {how}use one of your own: MLFLOW_EXPERIMENT_NAME={name}-{user_of(store) or 'mine'}"
    _check(store, f"the experiment {name}", "write into it", write, advice)


def _check_model(store: Store, name: str, how: str) -> None:
    def write() -> None:
        from mlflow.exceptions import MlflowException

        try:
            store.client.set_registered_model_tag(name, stored_tag(Tag.CHECKED), f"{time.time():.0f}")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise

    advice = f"or {how}let `tune` register nothing: register=none"
    _check(store, f"the registered model {name}", "add or promote its versions", write, advice)


def _check(store: Store, what: str, aim: str, write: Callable[[], None], advice: str) -> None:
    with store_errors(store, f"find out whether {what} can be written"):
        try:
            write()
        except Exception as error:
            if not is_forbidden(error):
                raise
            raise StoreError(
                f"T{what[1:]} of {redact(store.uri)} is another user's: {user_of(store) or 'this user'} may not "
                f"{aim}. Ask for the permission EDIT on it, {advice}."
            ) from error


def user_of(store: Store) -> str:
    """The name that MLflow's client gives a server; empty where it gives none, or a token."""
    from mlflow.utils.credentials import get_default_host_creds

    try:
        return str(get_default_host_creds(store.uri).username or "")
    except Exception as error:  # such as settings that exclude each other
        raise store_error(store, "read the name of the user", error) from error
