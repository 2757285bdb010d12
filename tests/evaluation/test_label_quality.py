"""A ranking of labels finds the wrong ones first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from muralab.errors import DataError
from muralab.evaluation.label_quality import rank_labels


def studies(n: int = 200, wrong: int = 10, seed: int = 0) -> tuple[pd.DataFrame, set[str]]:
    """Studies whose probabilities are right, and of which some labels are flipped."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    probabilities = 1 / (1 + np.exp(-(2.5 * (2 * truth - 1) + rng.normal(size=n))))
    flipped = rng.permutation(n)[:wrong]
    labels = truth.copy()
    labels[flipped] = 1 - labels[flipped]
    names = np.array([f"s{number:03d}" for number in range(n)])
    return pd.DataFrame({"study": names, "label": labels, "probability": probabilities}), set(names[flipped])


def test_wrong_labels_come_first() -> None:
    table, wrong = studies()
    ranked = rank_labels(table)
    assert len(wrong & set(ranked["study"][:12])) >= 9
    assert ranked["rank"].tolist() == list(range(1, 201))
    assert ranked["confidence"].is_monotonic_increasing


def test_few_right_labels_are_suspicious() -> None:
    table, wrong = studies()
    found = set(rank_labels(table).query("suspicious")["study"])
    assert len(found & wrong) >= 4  # those that are as likely as the usual study of the other class
    assert len(found - wrong) <= 1


@pytest.mark.parametrize("values", [{"study": "same"}, {"label": 1}, {"probability": np.nan}])
def test_a_table_that_cannot_be_ranked_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(DataError, match="A ranking of labels needs"):
        rank_labels(studies()[0].assign(**values))
