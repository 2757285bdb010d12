"""Trials of earlier sweeps that a search with `search=tpe` learns from.

Only those count whose objective means the same: of the same pictures in the same split, the same recipe's source and
pretrained weights, and the same values wherever this search draws none. So the test set stays unseen: an earlier split
with other test patients would have selected on some of those of now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from muralab.errors import RecipeError, SettingsError
from muralab.recipe import Value, override, resolved_values
from muralab.recipe_loader import load_recipe
from muralab.tracking import RunRecord, Store, find_trials, read_children
from muralab.tracking.tags import Tag
from muralab.trial import TrialSpec, recipes_of
from muralab.tune.adaptive import Observation
from muralab.tune.plan import Sweep
from muralab.tune.sampler import FIRST_CHOSEN

ENDED = ("finished", "pruned")
COMPARED = {
    Tag.PART: "another part",
    Tag.OBJECTIVE: "another objective",
    Tag.CONTENT: "other pictures",
    Tag.SPLIT_FINGERPRINT: "another split",
}
"""Tag that has to be that of the search -> what a trial with another one has."""


def start_warm(sweep: Sweep, store: Store, source: str | bool) -> Sweep:
    """A search that learns from earlier trials, and so spreads fewer of its own.

    Args:
        sweep: as planned.
        store: that holds the earlier trials.
        source: the run of an earlier sweep, or True for all trials of the store that fit.

    Raises:
        SettingsError: none of the named sweep's trials fits.
        StoreError: there is no such run, or the store failed.
    """
    found = (
        find_trials(store, Tag.CONTENT, sweep.dataset.content) if source is True else read_children(store, str(source))
    )
    unchanged = {spec.recipe: spec for spec in sweep.specs if spec.is_unchanged}
    observed, unfit = [], Counter[str]()
    for record in [one for one in found if one.kind == "trial" and one.recipe in unchanged]:
        own = unchanged[record.recipe]
        reason = _why_unfit(record, own, sweep)
        values = None if reason else _values(record, own, _searched(sweep, record.recipe))
        if values is None:
            unfit[reason or "other values where this search draws none"] += 1
        else:
            observed.append(
                Observation(
                    trial=record.run_id, recipe=record.recipe, values=values, objective=record.metrics["objective"]
                )
            )
    if not observed and source is not True:
        raise SettingsError(f"warm_start={source}: none of its trials fits this search. {_reasons(unfit)}".strip())
    note = _note(Counter(one.recipe for one in observed), unfit)
    return choose_earlier(replace(sweep, observed=tuple(observed))).with_notes([note])


def _searched(sweep: Sweep, recipe: str) -> set[str]:
    return {key for spec in sweep.specs if spec.recipe == recipe for key in (*spec.drawn, *spec.draws)}


def _why_unfit(record: RunRecord, spec: TrialSpec, sweep: Sweep) -> str:
    """What keeps a trial from being used; empty where nothing does."""
    tags = record.tags
    if tags.get(Tag.ENDED) not in ENDED or "objective" not in record.metrics:
        return "no result"
    for tag, what in COMPARED.items():
        if tags.get(tag) != sweep.tags[tag]:
            return what
    if tags.get(Tag.RECIPE_CODE) != spec.recipe_code:
        return "another version of the recipe"
    if load_recipe(spec.recipe).pretrained and tags.get(Tag.WEIGHTS) != sweep.weights:
        return "other pretrained weights"
    return ""


def _values(record: RunRecord, spec: TrialSpec, searched: set[str]) -> dict[str, Value] | None:
    """A trial's values of the keys that its recipe can search; None where an unsearched value is another one."""
    own = resolved_values(recipes_of(spec)[1])
    logged = {key: text for key, text in record.values.items() if key in own}
    try:
        values = resolved_values(override(load_recipe(record.recipe), logged))
    except RecipeError:
        return None
    if any(values[key] != value for key, value in own.items() if key not in searched):
        return None
    return {key: values[key] for key in load_recipe(record.recipe).search}


def choose_earlier(sweep: Sweep) -> Sweep:
    """A search that spreads fewer of its own trials, the more earlier ones it knows."""
    counts = Counter(one.recipe for one in sweep.observed)
    return sweep.with_specs(
        [_chosen_earlier(spec, counts[spec.recipe]) for spec in sweep.specs] if counts else sweep.specs
    )


def _chosen_earlier(spec: TrialSpec, n_known: int) -> TrialSpec:
    """A trial whose values are chosen instead of spread, where so many earlier ones are known."""
    number = int(spec.name.rsplit("-", 1)[1])
    if spec.draws or number < max(1, FIRST_CHOSEN - n_known):
        return spec
    return replace(spec, drawn={}, draws=list(spec.drawn))


def _note(counts: Mapping[str, int], unfit: Mapping[str, int]) -> str:
    shown = ", ".join(f"{recipe} {n}" for recipe, n in counts.items()) or "none"
    return f"warm_start: trials of earlier sweeps that this search learns from: {shown}. {_reasons(unfit)}".strip()


def _reasons(unfit: Mapping[str, int]) -> str:
    if not unfit:
        return ""
    return f"Not used: {', '.join(f'{n} with {what}' for what, n in sorted(unfit.items()))}."


def describe_choice(sweep: Sweep) -> Sequence[str]:
    """What a search that learns decides only while it runs."""
    config, specs = sweep.config, sweep.specs
    if config.search != "tpe":
        return []
    n_chosen = sum(spec.is_undrawn for spec in specs)
    if not n_chosen:
        return [
            f"search=tpe: with {config.trials} trials per recipe nothing is learned, since the first {FIRST_CHOSEN} "
            f"are the recipe itself and evenly spread values. Give trials={FIRST_CHOSEN + 1} or more."
        ]
    warm = "" if sweep.observed else " Earlier sweeps are not used (warm_start=false)."
    return [
        f"search=tpe: {len(specs) - n_chosen} of {len(specs)} trials are the recipe itself or evenly spread values; "
        f"the values of the other {n_chosen} are chosen when they start, from what the trials of their recipe have "
        f"reached by then.{warm}"
    ]
