"""Every metric, parameter and artifact of runs in MLflow, for the page that `mlflow_reference.py` writes.

Names that the code lists in one place come from there; tests compare the others with what commands log.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from muralab.config.commands import CompareConfig, TuneConfig
from muralab.data.audit.findings import KINDS
from muralab.data.augment import Augment
from muralab.evaluation.metrics import METRICS, main_metrics
from muralab.experiment import OBJECTIVES, VALIDATION_METRICS
from muralab.recipe import Recipe
from muralab.tracking.stored_names import stored_metric
from muralab.training.phases import PHASES, Phase
from muralab.tune.trial_score import SUMMARISED

TRAINED = "train, trial"
WITH_DATA = "tune, train, compare, evaluate"
WITH_REPORT = "tune, train, compare, report"
MACHINE_MEASURES = ("cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage")
GPU_MEASURES = (
    "memory_usage_percentage",
    "memory_usage_megabytes",
    "utilization_percentage",
    "power_usage_watts",
    "power_usage_percentage",
)
FOLDS = (
    "folds_study_<metric>",
    "folds_study_<main metric>_low",
    "folds_study_<main metric>_high",
    "folds_mean_study_<main metric>",
)
_VALUES = {"augment": Augment, **dict.fromkeys(PHASES, Phase)}
KEY = "|".join(
    [
        *(f.name for f in dataclasses.fields(Recipe)),
        *(rf"{part}\.{f.name}" for part, kind in _VALUES.items() for f in dataclasses.fields(kind)),
        r"model\.\w+",
    ]
)
PLACEHOLDERS = {
    "<recipe>": r"[A-Za-z_][\w.]*",
    "<key>": KEY,
    "<option>": "|".join(sorted({f.name for one in (TuneConfig, CompareConfig) for f in dataclasses.fields(one)})),
    "<phase>": "|".join(PHASES),
    "<metric>": "|".join(METRICS),
    "<main metric>": "|".join(main_metrics()),
    "<number>": r"\d+",
    "<check>": "metadata|occlusion|labels",
    "<part>": r"\w+",
    "<strength>": "[a-z_]+",
    "<digest>": "[0-9a-f]+",
}
"""Placeholder in a name -> what may stand there, as a regular expression."""


@dataclass(frozen=True)
class Entry:
    """One row of a table: names that mean one thing, where `<...>` stands for several."""

    names: str
    """Comma-separated."""
    kinds: str
    """Of the runs that have it, comma-separated."""
    meaning: str
    step: str = ""
    """Of a metric."""

    def fits(self, name: str, kind: str) -> bool:
        """Whether a run of a kind may have this name."""
        return kind in self.kinds.split(", ") and any(_pattern(one).fullmatch(name) for one in self.names.split(", "))


def _pattern(name: str) -> re.Pattern[str]:
    words = re.split(r"(<[^>]+>)", name)
    return re.compile("".join(f"({PLACEHOLDERS[word]})" if word.startswith("<") else re.escape(word) for word in words))


def bounded(name: str) -> str:
    """The names of a metric and its bounds."""
    return f"{name}, {name}_low, {name}_high"


def metrics() -> list[Entry]:
    """Every metric, by its group."""
    summarised = sorted({*SUMMARISED, *OBJECTIVES})
    validation = [
        Entry(
            stored_metric(name),
            TRAINED,
            f"{METRICS[metric].title} of the validation {'images' if level == 'image' else 'studies'}",
            "epoch",
        )
        for name, (level, metric) in VALIDATION_METRICS.items()
    ]
    return [
        Entry(
            "objective/best",
            TRAINED,
            "objective with the weights that are kept; of an ensemble, the mean of its networks",
            "epoch",
        ),
        Entry("objective/best", "tune", "objective of the chosen model", "0, or trials that were added"),
        Entry("objective/epoch", TRAINED, "objective after each epoch", "epoch"),
        Entry(
            bounded("importance/<recipe>/<key>"),
            "tune",
            "rank correlation of a searched value with the objective, with bounds",
            "0, or trials that were added",
        ),
        Entry(
            ", ".join(f"phase/<phase>/{name}" for name in summarised),
            TRAINED,
            "value at the best epoch of the phase",
            "last epoch",
        ),
        Entry("phase/<phase>/epochs", TRAINED, "epochs that the phase had", "last epoch"),
        Entry(
            "phase/<phase>/eval_train_loss, phase/<phase>/eval_train_accuracy",
            TRAINED,
            "training images in evaluation mode, without augmentation, with the best weights of the phase",
            "0",
        ),
        Entry(
            "progress/trials_done, progress/epochs_done", "tune, compare", "trials and epochs that have ended", "second"
        ),
        Entry("progress/best_objective", "tune, compare", "best objective so far", "second"),
        Entry("progress/minutes_left", "tune, compare", "estimated time to the end of the last trial", "second"),
        Entry(
            "recipes/<recipe>/objective",
            "tune",
            "objective of the best trial of the recipe",
            "0, or trials that were added",
        ),
        Entry(
            bounded("recipes/<recipe>/test_study_<metric>"),
            "tune",
            "the same trial on the test studies: AUROC, kappa, sensitivity, specificity",
            "0, or trials that were added",
        ),
        Entry(
            ", ".join(f"system/{measure}" for measure in MACHINE_MEASURES),
            "tune, compare",
            "load of the machine",
            "second",
        ),
        Entry(
            "system/disk_usage_percentage, system/disk_usage_megabytes, system/disk_available_megabytes",
            "tune, compare",
            "its disk",
            "second",
        ),
        Entry(
            ", ".join(f"system/gpu_<number>_{measure}" for measure in GPU_MEASURES),
            "tune, compare",
            "its GPUs, where `nvidia-ml-py` is installed",
            "second",
        ),
        Entry(
            "test/loss, test/accuracy, test/auroc",
            f"{TRAINED}, evaluate",
            "test images, at a threshold of 0.5, without calibration",
            "0",
        ),
        Entry(
            "test/members_mean_study_<main metric>", "train", "of an ensemble: mean of its networks' own values", "0"
        ),
        Entry(
            "test/study_<metric>",
            f"{TRAINED}, evaluate",
            "test studies, calibrated, at the fitted threshold",
            "0",
        ),
        Entry(
            "test/study_<main metric>_low, test/study_<main metric>_high",
            f"{TRAINED}, evaluate",
            "bounds of its 95% interval",
            "0",
        ),
        Entry(
            ", ".join(bounded(f"test/study_{name}") for name in ("auroc", "kappa", "sensitivity", "specificity")),
            "tune",
            "chosen model on the test studies",
            "0, or trials that were added",
        ),
        Entry("test/threshold", f"{TRAINED}, evaluate", "the fitted threshold, a calibrated probability", "0"),
        Entry(
            "train/loss, train/accuracy",
            TRAINED,
            "augmented training images, averaged over the steps of the epoch",
            "epoch",
        ),
        Entry("train/lr", TRAINED, "learning rate of the head at the last step", "epoch"),
        Entry("train/phase", TRAINED, "1 in the upper phase, 2 in the full one", "epoch"),
        Entry("train/epoch_seconds", TRAINED, "duration of training and validation", "epoch"),
        Entry(
            "train/batch_parts",
            TRAINED,
            "in how many parts a batch was computed; only where it did not fit into the GPU's memory",
            "epoch",
        ),
        *validation,
        Entry(
            ", ".join(FOLDS),
            "tune, train",
            "of a run above folds: each study by the model that was tested on it; `mean`: mean of the folds' values",
            "0",
        ),
        Entry(
            ", ".join(f"recipes/<recipe>/{name}" for name in FOLDS),
            "tune",
            "the same where there are several recipes",
            "0",
        ),
        Entry(", ".join(f"audit_{kind}" for kind in KINDS), "explore", "findings of each kind", "0"),
        Entry("pictures, studies", "predict, manifest", "images and studies that were answered or described", "0"),
        Entry("unanswered", "predict", "images without an answer", "0"),
        Entry("patients", "manifest", "patients in the table", "0"),
        Entry("unused", "predict, manifest", "files that were found and not used", "0"),
    ]


ARTIFACTS = [
    Entry("report.html", WITH_REPORT, "the report, one page that needs no other file"),
    Entry("results.csv", WITH_REPORT, "the figures of its models, with intervals"),
    Entry("plan.json", "tune", "the search as planned: options, trials and their values"),
    Entry("split.csv", WITH_DATA, "which image is in which set"),
    Entry("audit.md, audit.csv", f"{WITH_DATA}, explore", "findings of the audit, as text and as a table"),
    Entry("manifest.json", f"{WITH_DATA}, explore", "of a manifest: its path, digest, columns and counts"),
    Entry(
        "label_corrections.json",
        f"{WITH_DATA}, explore",
        "of corrected labels: path and digest of their table, and counts",
    ),
    Entry("label_corrections.csv", WITH_DATA, "the corrected studies with their labels, by their codes"),
    Entry("recipe/<recipe>.py", TRAINED, "source of the recipe"),
    Entry("recipe/sources.json", TRAINED, "the same with every file that it imports"),
    Entry("predictions/validation.csv", TRAINED, "one row per validation image, with its logit"),
    Entry(
        "predictions/test.csv",
        f"{TRAINED}, evaluate, promote",
        "one row per test image; of `promote`, the champion's re-evaluation",
    ),
    Entry("calibration.json", f"{TRAINED}, evaluate", "calibration, threshold and how they were fitted"),
    Entry("weights/weights.safetensors", TRAINED, "the kept weights; of trials, those of the best of each recipe"),
    Entry(
        "checks/<check>.json, checks/<check>.csv",
        "tune, train, compare, explore",
        "what [the checks](shortcuts.md) found: metadata alone, hidden borders, suspicious labels",
    ),
    Entry("study_groups.csv", "tune, train", "test studies by each column of the data set"),
    Entry("importances.csv", "tune", "how much each searched value mattered"),
    Entry(
        "judged_again.csv", "tune", "predictions of the champion on this test set, where the gate evaluated it on it"
    ),
    Entry("folds.csv", "tune, train", "figures of each fold, their mean and those of all folds together"),
    Entry("out_of_fold.csv", "tune, train", "one row per study, with the probability by the model of its fold"),
    Entry("differences.csv, comparison.md", "compare", "paired differences, as a table and as sentences"),
    Entry("class_balance.csv, figures/class_balance.png", "explore", "images and studies of each part and class"),
    Entry("figures/samples_<part>.png", "explore", "sample images; of patients only with `pictures=true`"),
    Entry("augmentation/<strength>.png", "explore", "each strength of augmentation on synthetic images"),
    Entry(
        "predictions.csv", "predict", "one row per image: probability, call, warnings or the reason why there is none"
    ),
    Entry("unused.csv", "manifest", "how many files were not used, by reason"),
    Entry(
        "platform/uncommitted-<digest>.diff",
        "tune, train, compare, evaluate, explore, promote, report",
        "how the checkout differed from its commit",
    ),
]
PARAMETERS = [
    Entry("<option>", "tune, compare", "an option as it was used"),
    Entry("resolved.<option>", "tune, compare", "the same where `mlflow run` had logged another text, such as `auto`"),
    Entry("<key>", "trial", "a searched value of the recipe"),
    Entry(
        "resolved.<key>, resolved.recipe, resolved.seed, resolved.weights, resolved.threads, resolved.precision",
        TRAINED,
        "every other value of the recipe, and what else the training depends on",
    ),
]
