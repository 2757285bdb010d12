"""Options of a search, resolved: recipes loaded, overrides applied, the machine's resources divided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from muralab.config.commands import SEARCHES, TuneConfig
from muralab.config.options import Problems
from muralab.config.parsing import PACK, STUDY, Value
from muralab.config.resources import Resources, count_gpus, free_memory
from muralab.config.training_options import TrainingOptions
from muralab.errors import MuraLabError, RecipeError, SettingsError, nearest
from muralab.processor import count_cpus
from muralab.recipe import Recipe, override
from muralab.recipe_loader import load_recipe, recipe_names
from muralab.report.references import STUDY_TITLES

T = TypeVar("T")
DEFAULT_TRIALS = {True: 2, False: 8}
"""Per recipe, on the demo and on real data."""
CPU_TRIAL_BYTES, DRIVER_BYTES = 2_300_000_000, 1_000_000_000
"""Memory of a trial without a GPU, and of the driver with Ray: 5.6 GB with two trials (docs/results.md)."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a search may use: of this machine, or of a node of a cluster."""

    cpus: int
    gpus: int
    memory_bytes: int
    name: str = ""
    """Of a node; empty for this machine."""

    @property
    def slots_in_memory(self) -> int:
        """Trials without a GPU that its memory holds at once; at least one on this machine, which also runs the driver.

        On a node, Ray gives a trial no place whose memory it has given to others.
        """
        if self.name:
            return self.memory_bytes // CPU_TRIAL_BYTES
        return max(1, (self.memory_bytes - DRIVER_BYTES) // CPU_TRIAL_BYTES)

    def slots_on_gpus(self, per_gpu: float) -> int:
        """Trials that its GPUs take at once; none is spread over two of them."""
        return self.gpus * int(1 / per_gpu + 1e-9)


def measure_machine() -> Machine:
    """What this process may use of its machine."""
    return Machine(cpus=count_cpus(), gpus=count_gpus(), memory_bytes=free_memory())


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Which recipes are trained with which values, how often, and with what."""

    options: TrainingOptions
    recipes: Mapping[str, Recipe]
    """Name -> recipe with the overrides applied."""
    overrides: Mapping[str, Mapping[str, Value]]
    """Name -> what was changed, by the demo's own values and by the user."""
    fixed: Mapping[str, Mapping[str, Value]]
    """Name -> what the user set: never drawn over."""
    trials: int
    """Per recipe."""
    resources: Resources
    max_concurrent: int | None = None
    """As the user gave it."""
    time_budget_s: float | None = None
    search: str = SEARCHES[0]
    """How the values of the trials are drawn."""
    pruning: bool = True
    """Whether trials that are clearly behind are stopped early."""
    nodes: tuple[Machine, ...] = ()
    """Of the cluster that the trials run on; empty: this machine."""

    @property
    def device(self) -> str:
        """`cuda` or `cpu`: where the trials train."""
        return "cuda" if self.resources.gpus_per_trial else "cpu"

    @property
    def precision(self) -> str:
        """`float32` or `bfloat16`: what training computes in."""
        from muralab.training.device import resolve_precision

        return resolve_precision(self.options.precision, self.device)


def resolve_search(
    options: TrainingOptions,
    recipes: Sequence[str],
    *,
    trials: int | str | None = None,
    max_concurrent: int | None = None,
    time_budget_s: float | None = None,
    search: str = SEARCHES[0],
    pruning: bool = True,
    machines: Sequence[Machine] = (),
) -> SearchConfig:
    """Load and override the recipes, and divide the machine, or the nodes of a cluster.

    Args:
        options: of the command.
        recipes: names, or one of the words of `recipe_names_of`.
        trials: per recipe; None: 2 on the demo, else 8, also where `+8` adds to a sweep.
        max_concurrent: trials at once; None: as many as fit.
        time_budget_s: for the search.
        search: how the values of the trials are drawn.
        pruning: whether trials that are clearly behind are stopped early.
        machines: what may be used; empty: this machine.

    Raises:
        MuraLabError: everything that is wrong, as one numbered list.
    """
    problems = Problems()
    changed, loaded = resolve_recipes(options, recipes, problems)
    resources = problems.attempt(divide_resources, options, max_concurrent, machines)
    problems.raise_all()
    assert resources is not None
    return SearchConfig(
        options=options,
        recipes=loaded,
        overrides=changed,
        fixed={name: fixed_values(options, load_recipe(name)) for name in loaded},
        trials=trials if isinstance(trials, int) else DEFAULT_TRIALS[options.is_demo],
        resources=resources,
        max_concurrent=max_concurrent,
        time_budget_s=time_budget_s,
        search=search,
        pruning=pruning,
        nodes=tuple(machine for machine in machines if machine.name),
    )


def check_search(
    options: TrainingOptions,
    recipes: Sequence[str],
    max_concurrent: int | None,
    problems: Problems,
    machines: Sequence[Machine] = (),
) -> None:
    """Collect what `resolve_search` would refuse."""
    resolve_recipes(options, recipes, problems)
    problems.attempt(divide_resources, options, max_concurrent, machines)


def check_draws(options: TuneConfig) -> None:
    """Refuse options about trials that a new search does not have.

    Raises:
        SettingsError: it has no sweep to extend, or does not learn.
    """
    if options.resume is None and isinstance(options.trials, str):
        raise SettingsError(f"trials={options.trials}: more trials of which sweep? Give resume=<its run id>, too.")
    if options.resume is None and options.warm_start and options.search != "tpe":
        raise SettingsError(
            f"warm_start={str(options.warm_start).lower()}: only search=tpe learns from earlier trials."
        )


def recipe_names_of(recipes: Sequence[str]) -> list[str]:
    """The recipes that are meant, `study` standing for the four of the wrist study, `all` for every one in `recipes/`.

    Raises:
        RecipeError: there are none.
    """
    if not recipes:
        raise RecipeError(f"recipes= names none. {nearest('', recipe_names())}")
    if is_word(recipes):
        return list(STUDY_TITLES) if recipes[0] == STUDY else recipe_names()
    return list(recipes)


def is_word(recipes: Sequence[str]) -> bool:
    """Whether a word stands for several recipes, which may be others tomorrow."""
    return tuple(recipes) in ((STUDY,), ("all",))


def fixed_values(options: TrainingOptions, recipe: Recipe) -> dict[str, Value]:
    """The values that the user has fixed for a recipe: the study's with `set=study`; the user's own take precedence.

    Raises:
        RecipeError: the recipe states no values of the study.
    """
    own = dict(options.set)
    values: dict[str, Value] = {}
    if own.pop(STUDY, False):
        if not recipe.study:
            raise RecipeError("set=study: this recipe has no `study={...}`, the values of the wrist study.")
        values |= recipe.study
    for key in ("image_size", "batch_size"):
        if getattr(options, key) is not None:
            values[key] = getattr(options, key)
    if options.epochs is not None:
        values |= {"upper.epochs": options.epochs[0], "full.epochs": options.epochs[1]}
    return values | own


def resolve_recipes(
    options: TrainingOptions, recipes: Sequence[str], problems: Problems
) -> tuple[dict[str, Mapping[str, Value]], dict[str, Recipe]]:
    """(name -> overrides, name -> recipe with them applied); what is wrong goes to `problems`."""
    chosen: dict[str, Mapping[str, Value]] = {}
    loaded: dict[str, Recipe] = {}
    names = problems.attempt(recipe_names_of, recipes) or []
    refused: list[MuraLabError] = []
    for name in names:
        recipe = problems.attempt(load_recipe, name)
        if recipe is None:
            continue
        try:
            chosen[name] = {
                **(recipe.demo if options.is_demo else {}),
                **_naming(name, fixed_values, options, recipe),
            }
            loaded[name] = _naming(name, _override, recipe, chosen[name])
        except MuraLabError as error:
            refused.append(error)
    problems.found += _merged(refused, names)
    return chosen, loaded


def _override(recipe: Recipe, changes: Mapping[str, Value]) -> Recipe:
    changed = override(recipe, changes)
    if changed.full.epochs == 0:
        raise SettingsError(
            "the full phase has no epochs, and nothing is tested after the upper phase alone. "
            "Expected upper+full such as 2+3, with full at least 1."
        )
    return changed


def _naming(recipe_name: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function; its user errors then begin with the recipe's name."""
    try:
        return function(*arguments)
    except MuraLabError as error:
        raise type(error)(f"{recipe_name}: {error}") from error


def _merged(errors: Sequence[MuraLabError], names: Sequence[str]) -> list[MuraLabError]:
    """Each problem once; one that all recipes share without their names."""
    by_text: dict[str, list[MuraLabError]] = {}
    for error in errors:
        by_text.setdefault(str(error).partition(": ")[2], []).append(error)
    shared = {text for text, own in by_text.items() if len(own) == len(names)}
    merged: Iterable[MuraLabError] = (
        type(own[0])(text) if text in shared else error for text, own in by_text.items() for error in own
    )
    return list({str(error): error for error in merged}.values())


def divide_resources(
    options: TrainingOptions, max_concurrent: int | None = None, machines: Sequence[Machine] = ()
) -> Resources:
    """What a search takes of this machine, or of the nodes of a cluster: no trial is spread over two of them.

    Raises:
        SettingsError: a trial asks for more than there is.
    """
    machines = machines or (measure_machine(),)
    gpus = sum(machine.gpus for machine in machines)
    per_gpu = _gpus_per_trial(options.gpus_per_trial, gpus, _naming_place(machines))
    if per_gpu and machines[0].name and not count_gpus():
        raise SettingsError(
            "The trials train on GPUs of the cluster, and this machine has none: start the command on a node with a "
            "GPU, where it times a step and evaluates the best models; or give gpus_per_trial=0."
        )
    used = [machine for machine in machines if machine.gpus or not per_gpu]
    per_cpu = options.cpus_per_trial or (
        max(1, min(machine.cpus // machine.slots_on_gpus(per_gpu) for machine in used)) if per_gpu else 1
    )
    most = max(machine.cpus for machine in used)
    if per_cpu > most:
        raise SettingsError(f"cpus_per_trial={per_cpu}: {_naming_place(machines, largest=True)} has {most}.")
    slots = fitting = 0
    for machine in used:
        own = machine.cpus // per_cpu
        own = min(own, machine.slots_on_gpus(per_gpu)) if per_gpu else own
        slots += own
        fitting += own if per_gpu else min(own, machine.slots_in_memory)
    if not fitting:
        raise SettingsError(
            f"No node of the cluster has the {CPU_TRIAL_BYTES / 1e9:g} GB of memory that a trial takes, as Ray counts "
            "it: start the nodes with more, such as ray start --memory=8000000000."
        )
    return Resources(
        cpus=sum(machine.cpus for machine in machines),
        gpus=gpus if per_gpu else 0,
        cpus_per_trial=per_cpu,
        gpus_per_trial=per_gpu,
        max_concurrent=min(slots, fitting if max_concurrent is None else max_concurrent),
    )


def _naming_place(machines: Sequence[Machine], *, largest: bool = False) -> str:
    if not machines[0].name:
        return "this machine"
    return "the largest node" if largest else "the cluster"


def _gpus_per_trial(wanted: float | str, gpus: int, place: str) -> float:
    """GPUs per trial; `auto` is one if there is one; so is `pack`, until memory is measured."""
    if wanted == "auto" or (wanted == PACK and gpus):
        return 1.0 if gpus else 0.0
    if isinstance(wanted, str):
        raise SettingsError(f"gpus_per_trial={PACK}: {place} has no GPU that torch can use. Give auto or 0.")
    if wanted > gpus:
        raise SettingsError(f"gpus_per_trial={wanted:g}: {place} has {gpus} that torch can use.")
    if wanted > 1:
        raise SettingsError(f"gpus_per_trial={wanted:g}: a trial trains on one GPU; give 1 or a fraction.")
    return wanted
