"""What the report of a search says about it as a whole: data, protocol, machine."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd

from muralab.config.search import SearchConfig
from muralab.data.dataset import Dataset
from muralab.data.mirror import uri_of
from muralab.processor import count_cpus
from muralab.report.context import Check, Context
from muralab.tracking import process_tags
from muralab.tracking.platform_version import describe_commit


def build_context(
    config: SearchConfig,
    dataset: Dataset,
    *,
    weights: str,
    notes: Sequence[str] = (),
    statements: Sequence[str] = (),
    title: str | None = None,
    comparison: bool = False,
    checks: Sequence[Check] = (),
    groups: pd.DataFrame | None = None,
) -> Context:
    """The context of a search that has just ended.

    Args:
        config: of the search.
        dataset: that it trained and tested on.
        weights: description of the pretrained weights.
        notes: warnings.
        statements: sentences that can be quoted, for the top of the page.
        title: of the page; None: the part's.
        comparison: whether recipes were compared over seeds, so that no single model was selected.
        checks: for shortcuts.
        groups: of the test studies.
    """
    options = config.options
    sizes = sorted({recipe.image_size for recipe in config.recipes.values()})
    return Context(
        title=title or f"MURA Lab: {options.part}",
        part=options.part,
        data=uri_of(options.data) or options.data,
        synthetic=dataset.synthetic,
        protocol=dataset.splits.protocol,
        seed=options.seed,
        image_size=sizes[0] if len(sizes) == 1 else " / ".join(str(size) for size in sizes),
        weights=weights,
        split_counts=dataset.counts(),
        fingerprint=dataset.splits.fingerprint,
        unreadable=dataset.unreadable,
        commit=describe_commit(process_tags()),
        created=datetime.now(UTC),
        machine=f"{describe_machine(config.resources.gpus > 0)}; trained in {config.precision}",
        notes=list(notes),
        statements=list(statements),
        objective=options.objective,
        audit=(dataset.audit.paragraph(), dataset.audit.table()),
        comparison=comparison,
        checks=list(checks),
        corrected_labels="" if dataset.corrections is None else dataset.corrections.sentence(),
        groups=groups,
    )


def describe_machine(with_gpu: bool) -> str:
    """Processor, cores, GPU and the versions that matter, in one line."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if with_gpu else ", no GPU"
    return (
        f"{platform.system()} {platform.machine()}, {count_cpus()} CPU cores{gpu}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
