"""The pretrained weights of a search: resolved once, in the driver, for all trials."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from muralab.config.search import SearchConfig
from muralab.errors import WeightsError
from muralab.training.weights import file_digest, resolve_weights


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where each recipe's pretrained weights lie."""

    files: dict[str, str]
    """Recipe -> file, or empty."""
    description: str
    """File names with digests, for params and report."""
    notes: tuple[str, ...] = ()


def find_weights(config: SearchConfig) -> Weights:
    """Find the weights that the recipes of a search start from.

    Raises:
        WeightsError: they are unavailable, and the data are real.
    """
    options = config.options
    files = dict.fromkeys(config.recipes, "")
    wanted = {name: recipe.pretrained for name, recipe in config.recipes.items() if recipe.pretrained}
    if not wanted:
        return Weights(files=files, description="none needed")
    try:
        by_network = {network: resolve_weights(options.weights, network) for network in set(wanted.values())}
    except WeightsError as error:
        if not (options.is_demo and options.weights == "auto"):
            raise
        note = f"{error} The demo continues with random weights, which lowers its figures."
        return Weights(files=files, description="random (no ImageNet weights available)", notes=(note,))
    for name, network in wanted.items():
        files[name] = str(by_network[network] or "")
    described = describe_weights(path for path in by_network.values() if path)
    return Weights(files=files, description=described or "random (as requested)")


def describe_weights(files: Iterable[Path]) -> str:
    """Names and digests of files of weights."""
    return "; ".join(f"{path.name} {file_digest(path)}" for path in sorted(set(files)))
