"""The options of the commands that train: what is trained on, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from muralab.config import parsing as p
from muralab.config.options import CommandOptions, Problems, option, options_of
from muralab.errors import SettingsError

DEMO = "demo"
AUTO = "auto"
DUPLICATES = ("keep", "drop")
RUN = "run"
"""In options of `evaluate`: the trained run's own."""
DATA_HELP = (
    "`demo` (synthetic, built in), or a MURA v1.1 tree or a manifest (CSV, Parquet): path, or URI such as s3://."
)
SET_HELP = (
    "Overrides such as full.lr=3e-5,augment.zoom=0.1; `study`: the schedule of the wrist study; or `none`. "
    "Keys: image_size, batch_size, ema_decay, clip_norm, class_weighting, kept_phase, compile, feature_views, "
    "source_scale; of each phase, upper. and full.: epochs, lr, trains, backbone_lr_factor, weight_decay, "
    "warmup_epochs, schedule, frozen_batchnorm, feature_dropout, patience; augment.: zoom, rotate_degrees, shift, "
    "contrast, flip, gamma, noise, blur, clahe, cutout, elastic; model.: of the recipe's network (docs/recipes.md)."
)
WEIGHTS_HELP = "`auto` (timm's ImageNet weights), `none` (random), a file, a folder, or recipe=file for several."
ROOT_HELP = "The folder that a manifest's image paths start from; `none`: the manifest's own."
COLUMNS_HELP = "Names of a manifest's columns, such as image:path,label:fracture, or `none`."
CORRECTIONS_HELP = "A table of what readers decided (study, label, reader, reason), applied on top of the labels."
NAMES_KEY_HELP = "A key file that machines share, to code names alike; `auto`: the data set's own key on this machine."


def check_manifest_options(data: str, root: str | None, columns: Mapping[str, str]) -> None:
    """Refuse options of manifests for other data, and a folder of this machine for a remote manifest.

    Raises:
        SettingsError: such an option is given, and the data are not a manifest, or it is named by a URI.
    """
    from muralab.data.manifest import is_manifest
    from muralab.storage_uri import is_uri

    given = ([f"root={root}"] if root else []) + (["columns"] if columns else [])
    if given and data != RUN and (data == DEMO or not is_manifest(data)):
        raise SettingsError(f"{' and '.join(given)}: only a manifest (CSV, Parquet) has these; data={data} is not one.")
    if root and is_uri(data):
        raise SettingsError(f"root={root}: the image paths of {data} start at its own folder; leave root out.")


def require_local_data(command: type[CommandOptions], texts: Mapping[str, str]) -> None:
    """Refuse a data set that is not there, or a part that it does not have; what a URI names is looked at later.

    Args:
        command: the dataclass of its options, among them `data` and `part`.
        texts: option -> text, as in `parse_options`.

    Raises:
        DataError: names what there is.
    """
    from muralab.storage_uri import is_uri

    known = options_of(command)
    texts = {name: str(one.default) for name, one in known.items()} | dict(texts)
    if texts.get("resume", "none") != "none":
        return  # its data and its part are those of the run
    try:
        data, part = (known[name].parse(name, texts[name]) for name in ("data", "part"))
    except SettingsError:
        return  # reported with what else is wrong
    if data != RUN and not is_uri(data):
        from muralab.data.mura import ALL_PARTS
        from muralab.data.source import require_data

        require_data(data, ALL_PARTS if part == RUN else part)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(CommandOptions):
    """What every command that trains takes."""

    part: str = option("wrist", p.text, "A part that the data set has, such as wrist, or `all`.")
    data: str = option(DEMO, p.data_or(DEMO), DATA_HELP)
    root: str | None = option("none", p.optional_path_text, ROOT_HELP)
    columns: Mapping[str, str] = option("none", p.columns, COLUMNS_HELP)
    test_fraction: float | None = option(
        AUTO, p.fraction, "Share of a manifest's patients to test on; `auto`: 0.2 where it has no column split."
    )
    test_folds: tuple[int, int] | None = option(
        "none", p.folds, "Test on each of 5 folds of a manifest's patients in turn: 5; on one of them: 2/5; or `none`."
    )
    label_corrections: str | None = option("none", p.optional_path_text, CORRECTIONS_HELP)
    weights: str = option("auto", p.weights, WEIGHTS_HELP)
    epochs: tuple[int, int] | None = option("recipe", p.epochs, "`recipe` (its own), or upper+full such as 2+3.")
    image_size: int | None = option("recipe", p.count_or("recipe"), "Side in px for every recipe, or `recipe`.")
    batch_size: int | None = option("recipe", p.count_or("recipe"), "Images per step for every recipe, or `recipe`.")
    set: Mapping[str, p.Value] = option("none", p.overrides, SET_HELP)
    seed: int = option("0", p.seed, "Of the split, the draws and the training.")
    gpus_per_trial: float | str = option(
        "auto",
        p.gpu_share,
        "`auto` (1 with CUDA, else 0), a fraction, or `pack` (what memory holds).",
    )
    cpus_per_trial: int | None = option("auto", p.count_or("auto"), "CPU cores per trial, or `auto`.")
    precision: str = option(
        "auto",
        p.choice(p.precisions),
        "What training computes in: float32, bfloat16, or `auto` (bfloat16 where the hardware is faster in it).",
    )
    protocol: str = option(
        AUTO,
        p.choice(lambda: (AUTO, *p.protocols())),
        "Of a MURA tree: `valid-as-test` (`auto`), or `valid-as-validation` (the wrist study's).",
    )
    duplicates: str = option(
        "keep", p.choice(lambda: DUPLICATES), "Test images that are copies of training images: `keep`, or `drop`."
    )
    names_key: str = option("auto", p.path_or("auto"), NAMES_KEY_HELP)
    objective: str = option("val_study_auroc", p.choice(p.objectives), "Validation metric that selects and prunes.")
    threshold: str = option(
        "max-kappa", p.threshold_rule, "The rule of the operating threshold: max-kappa, youden, or sensitivity>=0.9."
    )

    @property
    def is_demo(self) -> bool:
        """Whether the built-in data set is used."""
        return self.data == DEMO

    @property
    def test_set(self) -> str:
        """How the test set is chosen, as `split_index` takes it, or `auto`."""
        if self.test_folds is not None:
            return f"test_folds={self.test_folds[0]}/{self.test_folds[1]}"
        return self.protocol if self.test_fraction is None else f"test_fraction={self.test_fraction:g}"

    @property
    def validation_fold(self) -> tuple[int, int] | None:
        """The part of the training patients to validate on, as `split_index` takes it."""
        return None

    def check_data(self, problems: Problems) -> None:
        """Check that the options of the test set and of manifests fit the data."""
        problems.attempt(check_manifest_options, self.data, self.root, self.columns)
        problems.attempt(self._check_test_set)

    @classmethod
    def require_inputs(cls, texts: Mapping[str, str]) -> None:
        """The data set and its part exist."""
        require_local_data(cls, texts)

    def _check_test_set(self) -> None:
        from muralab.data.manifest import is_manifest

        drawn = [f"test_fraction={self.test_fraction:g}"] if self.test_fraction is not None else []
        drawn += [f"test_folds={self.test_folds[1]}"] if self.test_folds is not None else []
        if self.data != DEMO and is_manifest(self.data):
            if self.protocol != AUTO:
                raise SettingsError(
                    f"protocol={self.protocol}: a manifest has no official folders. Its column split names the test "
                    "images, or test_fraction or test_folds draws them; leave protocol out."
                )
            if len(drawn) > 1:
                raise SettingsError(f"{' and '.join(drawn)}: give one of the two.")
        elif drawn:
            raise SettingsError(f"{' and '.join(drawn)}: a MURA tree has its own test set; only a manifest's is drawn.")
