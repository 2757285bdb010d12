"""What MLflow's pages call a trial: its name within its search, and the values that it tries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from muralab.search_space import Value
from muralab.trial import TrialSpec

MAX_VALUES = 4
"""In a run's name; the run's page and the table of trials show all of them."""


def searched_keys(specs: Iterable[TrialSpec], recipe: str) -> list[str]:
    """The values that the trials of a recipe draw, in the recipe's order; its first trial keeps the recipe's own."""
    return list(dict.fromkeys(key for spec in specs if spec.recipe == recipe for key in (*spec.drawn, *spec.draws)))


def trial_title(spec: TrialSpec, searched: Sequence[str]) -> str:
    """The name of a trial's run, such as `inception-01 · lr 3e-5 · zoom 0.2`.

    Args:
        spec: the trial.
        searched: the values that trials of its recipe draw.
    """
    if not searched:
        return spec.name
    if not spec.drawn:
        return f"{spec.name} · the recipe as it is"
    names = short_keys(list(spec.drawn))
    shown = [f"{names[key]} {short_value(value)}" for key, value in list(spec.drawn.items())[:MAX_VALUES]]
    more = " …" if len(spec.drawn) > MAX_VALUES else ""
    return f"{' · '.join([spec.name, *shown])}{more}"


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Keys without their group (`full.lr`: `lr`), unless two of them have the same name."""
    names = {key: key.rsplit(".", 1)[-1] for key in keys}
    counts = Counter(names.values())
    return {key: name if counts[name] == 1 else key for key, name in names.items()}


def short_value(value: Value) -> str:
    """A value in at most three digits, such as `3e-5`."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e+")
