"""How metrics and tags are named in MLflow, so that its pages show them in groups and keep bookkeeping out of sight.

MLflow groups metrics by what stands before the last slash, and shows no tag that begins with `mlflow.`. The rest of the
code uses one name for each, such as `val_study_auroc` or `Tag.PID`: what writes runs and what reads them translates.
Runs of earlier versions, which were logged under the code's own names, are read by the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from muralab.tracking.tags import Tag

RENAMED = {
    # Groups are shown in alphabetical order: the objective's comes first.
    "objective": "objective/best",
    "epoch_objective": "objective/epoch",
    "threshold": "test/threshold",
    "phase": "train/phase",
    "lr": "train/lr",
    "epoch_seconds": "train/epoch_seconds",
    "batch_parts": "train/batch_parts",
}
PREFIXES = {
    # Metrics without a group are shown above all groups, and so above the objective.
    "upper_": "phase/upper/",
    "full_": "phase/full/",
    "members_mean_": "test/members_mean_",
    "val_": "val/",
    "train_": "train/",
    "test_": "test/",
}
"""First words of metrics that become groups: `val_loss` is stored as `val/loss`. The first that fits holds."""
_ORIGINAL = {stored: name for name, stored in RENAMED.items()}
HIDDEN_TAGS = frozenset(
    (Tag.HOST, Tag.PID, Tag.PROCESS_STARTED, Tag.STARTED_AS, Tag.PARENT, Tag.SPLIT_FINGERPRINT, Tag.DATA_FINGERPRINT,
     Tag.TEST_FINGERPRINT, Tag.TEST_PATIENTS, Tag.INTERVALS, Tag.UNDEFINED, Tag.CHECKED)
)  # fmt: skip
"""Bookkeeping: for commands, not for readers."""
HIDING = "mlflow."


def stored_metric(name: str) -> str:
    """The name of a metric in the store; one that belongs to no group is stored as it is."""
    if name in RENAMED:
        return RENAMED[name]
    for prefix, stored in PREFIXES.items():
        if name.startswith(prefix):
            return stored + name.removeprefix(prefix)
    return name


def metric_of(stored: str) -> str:
    """The name that the code uses for a stored metric, of this version or an earlier one."""
    if stored in _ORIGINAL:
        return _ORIGINAL[stored]
    for name, prefix in PREFIXES.items():
        if stored.startswith(prefix):
            return name + stored.removeprefix(prefix)
    return stored


def metrics_in_order(stored: Iterable[str]) -> list[str]:
    """Names of stored metrics; where an earlier version began a run and this one resumed it, this one's come last."""
    return sorted(stored, key=lambda key: ("/" in key, key))


def stored_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags by their names in the store."""
    return {stored_tag(name): value for name, value in tags.items()}


def stored_tag(name: str) -> str:
    """The name of a tag in the store."""
    return f"{HIDING}{name}" if name in HIDDEN_TAGS else name


def tags_of(stored: Mapping[str, str]) -> dict[str, str]:
    """Stored tags by the names that the code uses; where both are there, this version's hold."""
    hidden = {f"{HIDING}{name}": name for name in HIDDEN_TAGS}
    own = {hidden[name]: value for name, value in stored.items() if name in hidden}
    return {name: value for name, value in stored.items() if name not in hidden} | own


def tag_filters(name: str, value: str) -> list[str]:
    """MLflow's filters that together find the runs with a tag, of this version and of earlier ones."""
    return [f"tags.`{one}` = '{value}'" for one in dict.fromkeys((stored_tag(name), name))]
