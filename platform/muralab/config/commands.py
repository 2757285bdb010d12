"""The options of every command: one dataclass per entry point of MLproject, and of `app`.

A dataclass's docstring is its command's help. Shared options are inherited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from muralab.config import parsing as p
from muralab.config.options import CommandOptions, Problems, option
from muralab.config.training_options import (
    AUTO,
    COLUMNS_HELP,
    CORRECTIONS_HELP,
    DATA_HELP,
    DEMO,
    DUPLICATES,
    NAMES_KEY_HELP,
    ROOT_HELP,
    RUN,
    TrainingOptions,
    check_manifest_options,
    require_local_data,
)
from muralab.errors import SettingsError
from muralab.serving.engine import EXACT, FAST

LAYOUTS = ("pacs", "mura", "spreadsheet")
SEARCHES = ("quasi", "random", "tpe")
EVALUATED_SETS = ("test", "validation", "train", "all")
REGISTER_RECIPE, REGISTER_WINNER, REGISTER_NONE = "recipe", "winner", "none"
NONE = "none"
PICTURES_HELP = "`true` logs radiographs of errors; `auto`: of the demo only."
MODEL_HELP = "A registered model, models:/<name>@<alias>, or a model's folder."
STUDY_HELP = "What a study is: `auto` (by DICOM header, else by folder), `folder`, or `file` (each image alone)."
PREVALENCE_HELP = "Share of abnormal studies that probabilities hold for, or `validation`: that of the validation set."
STORAGE_HELP = (
    "What the nodes of a cluster share: a folder that all see, or a URI such as s3://bucket/prefix; or `none`."
)
ACCEPT_HELP = "`true` resumes although pictures, recipes, weights or the platform have changed; the run states it."


@dataclass(frozen=True, kw_only=True)
class TuneConfig(TrainingOptions):
    """Search several recipes, compare the best of each on the test set, register the best add-gate model."""

    recipes: tuple[str, ...] = option(
        p.STUDY,
        p.names,
        "`study` (the wrist study's four), `all` in recipes/, or comma-separated names; also importable modules.",
    )
    trials: int | str | None = option("auto", p.trials, "Per recipe; `auto`: 2 on the demo, else 8; resumed: or `+8`.")
    search: str = option(
        "quasi", p.choice(lambda: SEARCHES), "How values are drawn: `quasi` (evenly), `random`, or `tpe` (it learns)."
    )
    warm_start: bool | str = option(
        "false", p.flag_or_text, "`tpe` also learns from the store's trials that fit: `true`, or a sweep's run id."
    )
    pruning: bool = option(
        "on", p.flag, "`on` stops trials early that are clearly behind; `off` trains all to the end."
    )
    max_concurrent: int | None = option("auto", p.count_or("auto"), "Trials at once; `auto`: as many as fit.")
    ray_address: str = option(
        p.LOCAL, p.ray_address, "`local`: this machine; or an existing Ray cluster: `auto`, or host:port."
    )
    storage: str | None = option("none", p.storage_uri, STORAGE_HELP)
    time_budget: float | None = option("none", p.duration, "For the search: 900, 30m, 2h, or `none`.")
    register: str = option(
        REGISTER_RECIPE,
        p.choice(lambda: (REGISTER_RECIPE, REGISTER_WINNER, REGISTER_NONE)),
        "Register the best model of the `recipe` for serving (the add gate), the `winner` of all, or `none`.",
    )
    engine: str = option(
        EXACT,
        p.choice(lambda: (EXACT, FAST)),
        "Of the registered model: `exact` (float32), or `fast` (8-bit) if it is as good on the test studies.",
    )
    pictures: bool | None = option("auto", p.yes_no_or_auto, PICTURES_HELP)
    resume: str | None = option(
        "none", p.optional_text, "The run id of an interrupted sweep, or `latest`; its own options hold."
    )
    accept_changes: bool = option("false", p.flag, ACCEPT_HELP)
    dry_run: bool = option("false", p.flag, "`true` prints the plan and stops.")

    def check(self, problems: Problems) -> None:
        """Check the recipes, the machine's resources and how values are drawn."""
        from muralab.config.search import check_draws, check_search, resolve_recipes

        self.check_data(problems)
        if self.ray_address == p.LOCAL:
            check_search(self, self.recipes, self.max_concurrent, problems)
        else:  # what the cluster has is found out when the command connects to it
            resolve_recipes(self, self.recipes, problems)
            problems.attempt(self._check_storage)
        problems.attempt(check_draws, self)

    def _check_storage(self) -> None:
        if self.storage is None and self.resume is None:
            raise SettingsError(
                f"ray_address={self.ray_address}: its nodes need storage=, a folder that all of them see or a URI such "
                "as s3://bucket/prefix, for squares, weights and checkpoints."
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingOptions):
    """Train one recipe without a search, and evaluate it on the test set."""

    recipe: str = option("inception_add_gate", p.text, "A recipe's name, or an importable module.")
    ensemble: tuple[int, int] | None = option(
        "none",
        p.folds,
        "Average 5 networks, each validated on a different fifth of the training patients: 5; one of them: 2/5.",
    )
    pictures: bool | None = option("auto", p.yes_no_or_auto, PICTURES_HELP)
    resume: str | None = option("none", p.optional_text, "The run id of an interrupted training, or `latest`.")
    accept_changes: bool = option("false", p.flag, ACCEPT_HELP)

    def check(self, problems: Problems) -> None:
        """Check the recipe and the machine's resources."""
        from muralab.config.search import check_search

        self.check_data(problems)
        problems.attempt(self._check_single)
        if not problems.found:
            check_search(self, (self.recipe,), None, problems)

    @property
    def validation_fold(self) -> tuple[int, int] | None:
        """Of one network of an ensemble."""
        return self.ensemble if self.ensemble and self.ensemble[0] else None

    def _check_single(self) -> None:
        if self.ensemble and self.test_folds:
            raise SettingsError(
                f"ensemble={self.ensemble[1]} and test_folds={self.test_folds[1]}: give one of the two. An ensemble is "
                "tested on the data's own test set."
            )
        if self.recipe.strip() == "all" or "," in self.recipe:
            raise SettingsError(
                f"recipe={self.recipe}: a training takes one recipe. Give one name, or search several with `tune`."
            )
        if self.gpus_per_trial == p.PACK:
            raise SettingsError(f"gpus_per_trial={p.PACK}: a training is one trial and shares no GPU. Give auto.")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(TrainingOptions):
    """Train each recipe unchanged with several seeds, and state the paired difference with its interval."""

    recipes: tuple[str, ...] = option(
        "inception,inception_add_gate", p.names, "Comma-separated names; every other one is compared with the first."
    )
    seeds: int = option("5", p.whole(1, p.LARGEST_COUNT, hint="; 5 is a good start"), "How many seeds, from `seed` on.")
    max_concurrent: int | None = option("auto", p.count_or("auto"), "Trials at once; `auto`: as many as fit.")
    dry_run: bool = option("false", p.flag, "`true` prints the plan and stops.")

    def check(self, problems: Problems) -> None:
        """Check the recipes, the seeds and the machine's resources."""
        from muralab.config.search import check_search, recipe_names_of

        self.check_data(problems)
        check_search(self, self.recipes, self.max_concurrent, problems)
        problems.attempt(self._check_seeds)
        if not problems.found and len(recipe_names_of(self.recipes)) < 2:
            problems.attempt(self._refuse_one_recipe)

    def _check_seeds(self) -> None:
        if self.seed + self.seeds - 1 > p.LARGEST_SEED:
            raise SettingsError(f"seed={self.seed} with seeds={self.seeds}: the last seed is above {p.LARGEST_SEED:,}.")

    def _refuse_one_recipe(self) -> None:
        raise SettingsError("compare needs at least two recipes, such as recipes=inception,inception_add_gate.")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(CommandOptions):
    """Evaluate a trained run on a data set, its own or another."""

    model: str = option(None, p.text, "A run's id, or models:/mura-wrist@champion.")
    part: str = option(RUN, p.text, "A part, or `all`; `run`: the one that the run was trained on.")
    data: str = option(
        RUN,
        p.data_or(DEMO, RUN),
        "`demo`, the path or URI of a MURA v1.1 tree or of a manifest, or `run`: the run's own.",
    )
    root: str | None = option("none", p.optional_path_text, ROOT_HELP)
    columns: Mapping[str, str] = option("none", p.columns, COLUMNS_HELP)
    label_corrections: str = option(
        RUN, p.path_or(RUN, NONE), "A table of corrected labels, `none`, or `run`: the run's own, on its own data."
    )
    set: str = option("test", p.choice(lambda: EVALUATED_SETS), "test, validation, train or all.")
    protocol: str = option(RUN, p.choice(lambda: (*p.protocols(), RUN)), "Of the split; `run`: the trained run's own.")
    seed: int | None = option(RUN, p.seed_or_run, "Of the split; `run`: the trained run's own.")
    duplicates: str = option(
        RUN,
        p.choice(lambda: (*DUPLICATES, RUN)),
        "Test images that are copies of training images: keep, drop or `run`.",
    )
    names_key: str = option("auto", p.path_or("auto"), NAMES_KEY_HELP)
    prevalence: float | None = option("validation", p.prevalence, PREVALENCE_HELP)

    def check(self, problems: Problems) -> None:
        """The options of manifests fit the data."""
        problems.attempt(check_manifest_options, self.data, self.root, self.columns)
        problems.attempt(self._check_protocol)

    @classmethod
    def require_inputs(cls, texts: Mapping[str, str]) -> None:
        """Another data set, and its part, exist."""
        require_local_data(cls, texts)

    def _check_protocol(self) -> None:
        from muralab.data.manifest import is_manifest

        if self.protocol != RUN and self.data not in (RUN, DEMO) and is_manifest(self.data):
            raise SettingsError(
                f"protocol={self.protocol}: a manifest has no official folders; its own split is used. Leave protocol "
                "out; set=all evaluates all of its images."
            )


@dataclass(frozen=True, kw_only=True)
class ExploreConfig(CommandOptions):
    """Log the class balance per part and split, an audit of every file, and sample grids."""

    part: str = option("all", p.text, "A part that the data set has, such as wrist, or `all`.")
    data: str = option(DEMO, p.data_or(DEMO), DATA_HELP)
    root: str | None = option("none", p.optional_path_text, ROOT_HELP)
    columns: Mapping[str, str] = option("none", p.columns, COLUMNS_HELP)
    label_corrections: str | None = option("none", p.optional_path_text, CORRECTIONS_HELP)
    seed: int = option("0", p.seed, "Of the sample.")
    pictures: bool | None = option("auto", p.yes_no_or_auto, "`true` logs sample grids; `auto`: of the demo only.")
    names_key: str = option("auto", p.path_or("auto"), NAMES_KEY_HELP)

    def check(self, problems: Problems) -> None:
        """The options of manifests fit the data."""
        problems.attempt(check_manifest_options, self.data, self.root, self.columns)

    @classmethod
    def require_inputs(cls, texts: Mapping[str, str]) -> None:
        """The data set and its part exist."""
        require_local_data(cls, texts)


@dataclass(frozen=True, kw_only=True)
class ReportConfig(CommandOptions):
    """Write one self-contained HTML report of any evaluated runs of one part and test set."""

    runs: tuple[str, ...] = option(
        None, p.names, "Comma-separated ids of evaluated runs; a sweep's id stands for its best trials."
    )
    out: Path | None = option("none", p.optional_path, "Also write it to this file or folder; or `none`.")
    pictures: bool | None = option("auto", p.yes_no_or_auto, PICTURES_HELP)


@dataclass(frozen=True, kw_only=True)
class PromoteConfig(CommandOptions):
    """Compare a model with the champion on the same test studies; it becomes champion or stays challenger."""

    part: str = option("wrist", p.text, "The part whose registered model, mura-<part>, it is.")
    run: str | None = option("none", p.optional_text, "A trained run that was tested; registered if it is not yet.")
    version: str | None = option("none", p.optional_text, "Or a version of mura-<part>.")
    engine: str = option(
        AUTO,
        p.choice(lambda: (AUTO, EXACT, FAST)),
        "`exact` (float32) or `fast` (8-bit) registers a run with it; `auto`: as it is registered, else exact.",
    )
    margin: float = option("0.025", p.number(0, 1), "The paired 95% interval must lie above minus this.")
    dry_run: bool = option("false", p.flag, "`true` decides and changes nothing.")

    def check(self, problems: Problems) -> None:
        """Exactly one of run and version is given, and the part can be a model's name."""
        problems.attempt(self._check_source)
        problems.attempt(self._check_part)

    def _check_source(self) -> None:
        if (self.run is None) == (self.version is None):
            raise SettingsError("promote needs one of run=<id of a trained run> and version=<number>.")
        if self.run is None and self.engine != AUTO:
            raise SettingsError(
                f"engine={self.engine}: a version keeps the engine it was registered with. Give its run."
            )

    def _check_part(self) -> None:
        import re

        if not re.fullmatch(r"[\w .-]+", self.part):  # it goes into a filter of the store
            raise SettingsError(f"part={self.part}: expected a body part, such as wrist, or `all`.")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(CommandOptions):
    """Answer for files with a registered model or a server, and write one table."""

    images: Path = option(None, p.required_path, "An image, or a folder: MURA, a PACS export or any other tree.")
    out: Path = option("predictions.csv", p.required_path, "The table to write: .csv or .parquet.")
    model: str = option("models:/mura-wrist@champion", p.model_uri, MODEL_HELP)
    url: str | None = option("none", p.optional_text, "Ask a server instead, http://127.0.0.1:5001; or `none`.")
    token_file: Path | None = option("none", p.optional_path, "A file with the server's bearer token, or `none`.")
    study: str = option("auto", p.text, STUDY_HELP)
    rows: int = option("16", p.whole(1, p.LARGEST_COUNT), "Images per request; a study is never split.")
    threshold: float | None = option("model", p.number_or("model", 0, 1), "From 0 to 1, or `model`: the model's own.")
    prevalence: float | None = option("validation", p.prevalence, PREVALENCE_HELP)


@dataclass(frozen=True, kw_only=True)
class ManifestConfig(CommandOptions):
    """Write a manifest of the pictures in a folder, such as a PACS export, from their DICOM headers."""

    folder: Path = option(None, p.required_path, "A folder of pictures, at any depth, whatever their names.")
    out: Path = option("manifest.csv", p.required_path, "The manifest to write: .csv or .parquet.")
    labels: Path | None = option("none", p.optional_path, "A table of labels by study, accession number or patient.")
    columns: Mapping[str, str] = option(
        "none", p.columns, "Names of the label table's columns, such as accession:Auftrag,label:Befund, or `none`."
    )
    study: str = option("auto", p.text, STUDY_HELP)
    part: str | None = option(
        "header", p.part_or_header, "The part of pictures whose header names none, such as wrist."
    )


@dataclass(frozen=True, kw_only=True)
class DemoConfig(CommandOptions):
    """Write synthetic radiographs to a folder: a DICOM export of a PACS, a MURA tree, or pictures and a spreadsheet."""

    folder: Path = option(None, p.required_path, "The folder to write; it is created.")
    layout: str = option(
        "pacs",
        p.choice(lambda: LAYOUTS),
        "`pacs` (DICOM files and a table of labels), `mura`, or `spreadsheet` (pictures of hands and their table).",
    )
    images: int | None = option("auto", p.images_or_auto, "Pictures in all; `auto`: 921, of `spreadsheet` 600.")
    seed: int = option("0", p.seed, "Of everything that is drawn.")


@dataclass(frozen=True, kw_only=True)
class NewRecipeConfig(CommandOptions):
    """Write a recipe around a convolutional network of timm to recipes/<name>.py."""

    name: str = option(None, p.text, "The recipe's name, such as resnet18.")
    backbone: str = option(None, p.text, "The network's name in timm, such as resnet18 or resnet18.a1_in1k.")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(CommandOptions):
    """List what earlier commands left behind, and what does not fit together on this machine."""

    fix: bool = option("false", p.flag, "`true` removes and closes what is safe to.")


@dataclass(frozen=True, kw_only=True)
class AppConfig(CommandOptions):
    """Serve a registered model with limits, plain errors, a web page and, if given, a token."""

    model: str = option("models:/mura-wrist@champion", p.model_uri, MODEL_HELP)
    host: str = option("127.0.0.1", p.text, "The address to listen on; other than loopback needs a token.")
    port: int = option("5001", p.whole(1, 65535), "The port to listen on.")
    token_file: Path | None = option("none", p.optional_path, "A file with the bearer token of clients, or `none`.")
    max_megabytes: int = option("48", p.whole(1, 1024), "Largest request body.")


@dataclass(frozen=True, kw_only=True)
class SyncConfig(CommandOptions):
    """Write to the tracking store what it did not take while earlier commands ran."""

    discard: bool = option("false", p.flag, "`true` gives up what the store refuses again.")
