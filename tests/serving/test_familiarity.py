"""Images that are far from the training images in the network's features get a warning, others do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from muralab.serving.familiarity import MIN_IMAGES, Familiarity, fit_familiarity, read_familiarity, write_familiarity


def features(n: int, seed: int, direction: int = 0, dimensions: int = 64) -> np.ndarray:
    """Features around one direction, of different lengths."""
    rng = np.random.default_rng(seed)
    values = 0.2 * rng.normal(size=(n, dimensions))
    values[:, direction] += 3
    return (values * rng.uniform(0.5, 2, (n, 1))).astype(np.float32)


@pytest.fixture
def known() -> Familiarity:
    found = fit_familiarity(features(300, 0), features(400, 1))
    assert found is not None
    return found


def test_images_of_the_same_kind_are_familiar(known: Familiarity) -> None:
    assert np.mean([bool(warning) for warning in known.warnings(features(2000, 2))]) < 0.02


def test_images_of_another_kind_are_not(known: Familiarity) -> None:
    warnings = known.warnings(features(50, 3, direction=5))
    assert all(warning.startswith("unlike the training images (feature distance ") for warning in warnings)


def test_the_limit_is_the_conformal_quantile_of_validation(known: Familiarity) -> None:
    distances = np.sort(known.distances(features(400, 1)))
    assert known.limit == pytest.approx(distances[int(np.ceil(0.99 * 401)) - 1])


def test_few_validation_images_give_their_largest_distance() -> None:
    few = features(MIN_IMAGES, 1)
    known = fit_familiarity(features(300, 0), few)
    assert known is not None
    assert known.limit == pytest.approx(known.distances(few).max())


@pytest.mark.parametrize("sizes", [(MIN_IMAGES - 1, 100), (100, MIN_IMAGES - 1)])
def test_too_few_images_give_no_limit(sizes: tuple[int, int]) -> None:
    assert fit_familiarity(features(sizes[0], 0), features(sizes[1], 1)) is None


def test_equal_features_give_no_limit() -> None:
    assert fit_familiarity(np.ones((30, 4)), np.ones((30, 4))) is None


def test_the_stored_file_gives_the_same_warnings(known: Familiarity, tmp_path: Path) -> None:
    write_familiarity(known, tmp_path / "f.npz")
    stored = read_familiarity(tmp_path / "f.npz")
    others = np.concatenate([features(20, 3, direction=5), features(20, 4)])
    assert stored.distances(others) == pytest.approx(known.distances(others), abs=2e-3)
    assert (stored.limit, stored.n_validation) == (known.limit, 400)
