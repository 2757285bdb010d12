"""A search before it starts: checked in full, its trials drawn, its data opened, its cost estimated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from muralab.config.parsing import STUDY, unless_auto
from muralab.config.search import CPU_TRIAL_BYTES, SearchConfig
from muralab.config.training_options import TrainingOptions
from muralab.console import format_duration, narrow_table
from muralab.data.dataset import Dataset, find_dataset, open_dataset
from muralab.data.images.value_range import range_to_text
from muralab.data.source import AUTO, DatasetSource
from muralab.data.splits import PROTOCOLS, STUDY_PROTOCOL
from muralab.data.value_ranges import DECIDE, RangeChoice
from muralab.evaluation.operating_point import check_patients
from muralab.recipe import Recipe
from muralab.recipe_source import digest_sources
from muralab.results.changes import Inputs, present_inputs
from muralab.results.duplicates import handle_duplicates
from muralab.results.gallery import check_burned_in
from muralab.results.inputs import data_tags, names_tag
from muralab.tracking.tags import Tag
from muralab.training.device import gains_from_bfloat16
from muralab.trial import TrialSpec
from muralab.tune.adaptive import Observation
from muralab.tune.cluster import node_list
from muralab.tune.disk_space import check_space, pixel_files
from muralab.tune.estimate import Estimate
from muralab.tune.folders import SWEEPS, Folders
from muralab.tune.preflight import check_trial
from muralab.tune.sampler import draw_specs
from muralab.tune.stopping import MIN_PEERS
from muralab.tune.weights import find_weights


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Everything that is decided before the first trial starts."""

    config: SearchConfig
    folders: Folders
    dataset: Dataset
    specs: tuple[TrialSpec, ...]
    weights: str
    """Description of the pretrained weights."""
    inputs: Inputs
    """Recipes and platform, as they were when it was planned."""
    notes: tuple[str, ...] = ()
    accepted: str = ""
    """What has changed since it was planned, accepted when it was resumed."""
    observed: tuple[Observation, ...] = ()
    """Trials of earlier sweeps that `search=tpe` learns from."""
    extended: int = 0
    """Trials per recipe that were added after it had ended."""
    resumed: str | None = None
    """The run that is resumed; None for a new one."""
    kind: str = "tune"
    """tune, train or compare."""

    @property
    def part(self) -> str:
        """The body part, or `all`."""
        return self.config.options.part

    @property
    def tags(self) -> dict[str, str]:
        """Tags that every run of the search carries."""
        options = self.config.options
        return {
            Tag.PART: options.part,
            Tag.SYNTHETIC: str(self.dataset.synthetic).lower(),
            Tag.SEED: str(options.seed),
            Tag.SPLIT_FINGERPRINT: self.dataset.splits.fingerprint,
            Tag.CONTENT: self.dataset.content,
            Tag.VALUE_RANGE: range_to_text(self.dataset.value_range),
            Tag.PROTOCOL: self.dataset.splits.protocol,
            **names_tag(self.dataset),
            Tag.DUPLICATES: options.duplicates,
            Tag.OBJECTIVE: options.objective,
            Tag.WEIGHTS: self.weights,
            **data_tags(self.dataset.source, self.dataset.manifest, self.dataset.corrections),
            **({Tag.ACCEPTED_CHANGES: self.accepted} if self.accepted else {}),
        }

    @property
    def used(self) -> dict[str, object]:
        """What the options of the search came to: params of its run."""
        config, options = self.config, self.config.options
        recipes, resources = config.recipes, config.resources
        return {
            "part": options.part,
            "data": options.data,
            "weights": self.weights,
            "recipes": ",".join(recipes),
            "trials": config.trials,
            "epochs": _of_all(f"{one.upper.epochs}+{one.full.epochs}" for one in recipes.values()),
            "image_size": _of_all(one.image_size for one in recipes.values()),
            "batch_size": _of_all(one.batch_size for one in recipes.values()),
            "set": ",".join(f"{key}={value}" for key, value in options.set.items()) or "none",
            "seed": options.seed,
            "gpus_per_trial": f"{resources.gpus_per_trial:g}",
            "cpus_per_trial": resources.cpus_per_trial,
            "max_concurrent": resources.max_concurrent,
            "precision": options.precision,
            "protocol": self.dataset.splits.protocol,
            "root": options.root or "none",
            "columns": ",".join(f"{key}:{name}" for key, name in options.columns.items()) or "none",
            "label_corrections": options.label_corrections or "none",
            "duplicates": options.duplicates,
            "objective": options.objective,
            "threshold": options.threshold,
        }

    def with_specs(self, specs: Sequence[TrialSpec]) -> Sweep:
        """The same with other trials, or with its trials in another order."""
        return replace(self, specs=tuple(specs))

    def with_notes(self, notes: Sequence[str]) -> Sweep:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def of_run(self, run_id: str) -> Sweep:
        """The same with its files in the folder of its run, where `resume` finds them."""
        folders = self.folders.of_run(run_id)
        before, after = str(self.folders.sweep), str(folders.sweep)
        specs = [
            replace(spec, table=spec.table.replace(before, after), folder=spec.folder.replace(before, after))
            for spec in self.specs
        ]
        return replace(self, folders=folders, specs=tuple(specs))


def _of_all(values: Iterable[object]) -> str:
    """The value of all recipes, or each recipe's in their order."""
    found = [str(value) for value in values]
    return found[0] if len(set(found)) == 1 else ",".join(found)


def prepare_sweep(
    config: SearchConfig, cache: Any, progress: Any, *, check_access: Callable[[], None] = lambda: None
) -> Sweep:
    """A new search, checked in full before anything slow.

    Args:
        config: of the search.
        cache: folder of decoded images, features, checkpoints and plans.
        progress: shows long steps.
        check_access: called once the data set and its part exist, before anything slow.

    Raises:
        MuraLabError: user errors in data, weights or recipes; too little disk space.
    """
    source = source_of(config.options)
    check_access()
    sizes = [size for recipe in config.recipes.values() for size in recipe.decoded_sizes]
    files = pixel_files(source.n_images, sizes, cache)
    check_space(sum(file.n_bytes for file in files if not file.is_cached), cache)
    weights = find_weights(config)
    folders = Folders(cache=cache, sweep=cache / SWEEPS / f"new-{time.time_ns()}")
    specs = draw_specs(config, folders, weights.files)
    for spec in specs[: len(config.recipes)]:
        check_trial(spec)
    inputs = present_inputs(config.recipes)
    dataset = open_data(config, source, cache, progress)
    return Sweep(
        config=config,
        folders=folders,
        dataset=dataset,
        specs=with_inputs(specs, inputs, dataset),
        inputs=inputs,
        weights=weights.description,
        notes=(*_study_notes(config), *_precision_notes(config), *weights.notes, *dataset.notes),
    )


def with_inputs(specs: Sequence[TrialSpec], inputs: Inputs, dataset: Dataset) -> tuple[TrialSpec, ...]:
    """Trials that refuse to start with another recipe or other pictures."""
    codes = {name: digest_sources(sources) for name, sources in inputs.recipes.items()}
    shown = range_to_text(dataset.value_range)
    return tuple(
        replace(spec, content=dataset.content, value_range=shown, recipe_code=codes[spec.recipe]) for spec in specs
    )


def _study_notes(config: SearchConfig) -> list[str]:
    """What `set=study` does not cover."""
    if STUDY not in config.options.set:
        return []
    protocol = config.options.protocol if config.options.protocol != AUTO else PROTOCOLS[0]
    note = (
        "set=study: the recipes follow the schedule of the wrist study, an unpublished course report by D. Fountas; "
        "docs/study.md lists what still differs."
    )
    if protocol != STUDY_PROTOCOL:
        note += f" The study's split is protocol={STUDY_PROTOCOL}; this is {protocol}."
    return [note]


def _precision_notes(config: SearchConfig) -> list[str]:
    """What to know of a precision that the user asked for."""
    if config.options.precision != "bfloat16" or gains_from_bfloat16(config.device):
        return []
    return [
        "precision=bfloat16: this machine computes no faster in bfloat16 than in float32, or slower. "
        "precision=auto takes the faster one."
    ]


def source_of(options: TrainingOptions) -> DatasetSource:
    """The data set of a training, indexed and split but not decoded.

    Raises:
        DataError: what its path and tables show to be wrong.
    """
    return find_dataset(
        options.data,
        options.part,
        protocol=options.test_set,
        seed=options.seed,
        validation_fold=options.validation_fold,
        image_root=options.root,
        columns=options.columns,
        label_corrections=options.label_corrections,
    )


def open_data(
    config: SearchConfig, source: DatasetSource, cache: Any, progress: Any, *, value_range: RangeChoice = DECIDE
) -> Dataset:
    """The data set, decoded at every image size of the search and audited, with duplicates handled as configured.

    Args:
        config: of the search.
        source: of the data set.
        cache: folder of decoded images and audits.
        progress: shows long steps.
        value_range: see `open_dataset`.

    Raises:
        SettingsError: its validation set has too few abnormal patients for the threshold rule, or pictures=true and
            names may be burned into them.
    """
    sizes = {size for recipe in config.recipes.values() for size in recipe.decoded_sizes}
    if not source.is_demo:  # before hours of decoding
        check_threshold_rule(source.split_of_all[0].validation, config.options.threshold)
    dataset = open_dataset(
        source,
        image_sizes=sizes,
        cache_folder=cache,
        progress=progress,
        value_range=value_range,
        names_key=unless_auto(config.options.names_key),
    )
    check_threshold_rule(dataset.tables["validation"], config.options.threshold)
    if getattr(config.options, "pictures", None):
        check_burned_in(dataset.audit.burned_in)
    return handle_duplicates(dataset, config.options.duplicates)


def check_threshold_rule(validation: pd.DataFrame, rule: str) -> None:
    """Refuse a threshold rule that could not be fitted on these images once everything is trained.

    Raises:
        SettingsError: too few abnormal patients; names how many are needed.
    """
    studies = validation.drop_duplicates("study")
    check_patients(studies["label"], studies["patient"], rule)


def in_order(specs: Sequence[TrialSpec], estimated: Estimate) -> tuple[TrialSpec, ...]:
    """Every recipe's first trial before any second one, and long ones first, so that no slot idles at the end."""
    number = {spec.name: int(spec.name.rsplit("-", 1)[1]) for spec in specs}
    return tuple(sorted(specs, key=lambda spec: (number[spec.name], -sum(estimated.epoch_s[spec.recipe]), spec.name)))


def plan_table(config: SearchConfig, estimated: Estimate) -> Any:
    """The plan as a rich table."""
    table = narrow_table("Plan: epochs of the upper + the full phase, about the time of one trial")
    for heading in ("recipe", "what", "trials", "epochs", "image", "batch", "time"):
        is_text = heading in ("recipe", "what")
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=heading != "what")
    for name, recipe in config.recipes.items():
        table.add_row(
            name,
            recipe.summary,
            str(config.trials),
            f"{recipe.upper.epochs} + {recipe.full.epochs}",
            f"{recipe.image_size} px",
            str(recipe.batch_size),
            format_duration(sum(estimated.epoch_s[name])),
        )
    return table


def plan_summary(config: SearchConfig, estimated: Estimate) -> str:
    """The plan's totals in one line."""
    resources = config.resources
    trials = config.trials * len(config.recipes)
    epochs = config.trials * sum(_n_epochs(recipe) for recipe in config.recipes.values())
    where = f"{resources.gpus_per_trial:g} GPU each" if resources.gpus_per_trial else "no GPU"
    by_cores = resources.cpus // resources.cpus_per_trial
    if not resources.gpus and config.max_concurrent is None and resources.max_concurrent < by_cores:
        where += (
            f"; memory is the limit at {CPU_TRIAL_BYTES / 1e9:g} GB per trial, max_concurrent={by_cores} overrides it"
        )
    cores = format_cores(resources.cpus_per_trial)
    on_nodes = f" on {node_list(config.nodes)}" if config.nodes else ""
    fewer = " or less (pruning)" if config.pruning and config.trials > MIN_PEERS else ""
    return (
        f"{trials} trials, {epochs} epochs at most; {resources.max_concurrent} at a time "
        f"({cores} and {where}){on_nodes} in {config.precision}; "
        f"about {format_duration(estimated.wall_s)}{fewer}, {estimated.disk_bytes / 2**30:.1f} GiB of disk."
        f"{_uneven_nodes(config)}"
    )


def _uneven_nodes(config: SearchConfig) -> str:
    """What the nodes with the fewest cores for their GPUs cost; empty where all GPUs are used with all cores."""
    resources, options = config.resources, config.options
    if not config.nodes or not resources.gpus_per_trial:
        return ""
    places = {node: node.slots_on_gpus(resources.gpus_per_trial) for node in config.nodes if node.gpus}
    idle = [node for node, slots in places.items() if node.cpus // resources.cpus_per_trial < slots]
    text = ""
    if idle:
        slots, taken = sum(places[node] for node in idle), sum(node.cpus // resources.cpus_per_trial for node in idle)
        names, whose = ", ".join(node.name for node in idle), "its" if len(idle) == 1 else "their"
        text += f" The cores of {names} are enough for {taken} of the {slots} trials that {whose} GPUs could take."
    fewest = min(places, key=lambda node: node.cpus / places[node])
    most = max(node.cpus // slots for node, slots in places.items())
    if options.cpus_per_trial is None and most > resources.cpus_per_trial:
        text += (
            f" {fewest.name} has the fewest cores for each place on its GPUs, and all trials get as many: "
            f"cpus_per_trial up to {most} uses more cores of the other nodes and fewer GPUs of this one."
        )
    return text


def format_cores(count: int) -> str:
    """1 CPU core, 4 CPU cores."""
    return f"{count} CPU core{'s' * (count != 1)}"


def _n_epochs(recipe: Recipe) -> int:
    return recipe.upper.epochs + recipe.full.epochs
