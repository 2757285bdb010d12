"""Images that are far from the training images in the network's features get a warning, others do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from muralab.serving.appearance import compute_descriptors, fit_appearance
from muralab.serving.familiarity import MIN_IMAGES, Familiarity, fit_familiarity, read_familiarity, write_familiarity


def features(n: int, seed: int, direction: int = 0, dimensions: int = 64) -> np.ndarray:
    """Features around one direction, of different lengths."""
    rng = np.random.default_rng(seed)
    values = 0.2 * rng.normal(size=(n, dimensions))
    values[:, direction] += 3
    return (values * rng.uniform(0.5, 2, (n, 1))).astype(np.float32)


def squares(n: int, seed: int, *, grain: int = 8, side: int = 80) -> np.ndarray:
    """Images of noise of one grain, dark at the borders."""
    rng = np.random.default_rng(seed)
    small = rng.normal(120, 40, (n, side // grain, side // grain)).clip(0, 255)
    window = np.outer(np.hanning(side), np.hanning(side))
    return (small.repeat(grain, axis=1).repeat(grain, axis=2) * window).astype(np.uint8)


def fit_images(train: np.ndarray, validation: np.ndarray) -> Familiarity | None:
    """What is familiar to a network that finds these features in images of noise."""
    return fit_familiarity(
        train,
        validation,
        train_squares=squares(len(train), 0),
        validation_squares=squares(len(validation), 1),
    )


@pytest.fixture
def known() -> Familiarity:
    found = fit_images(features(300, 0), features(400, 1))
    assert found is not None
    return found


def test_images_of_the_same_kind_are_familiar(known: Familiarity) -> None:
    warnings = known.warnings(features(2000, 2), squares(2000, 2))
    assert 0 < np.mean([bool(warning) for warning in warnings]) < 0.025


def test_images_of_another_kind_are_not(known: Familiarity) -> None:
    warnings = known.warnings(features(50, 3, direction=5), squares(50, 3))
    assert all(warning.startswith("unlike the training images (feature distance ") for warning in warnings)


def test_features_that_are_not_finite_are_not_familiar(known: Familiarity) -> None:
    broken = features(3, 2)
    broken[1, 0], broken[2, 5] = np.nan, np.inf
    warned = known.warnings(broken, squares(3, 2))
    assert [bool(warning) for warning in warned] == [False, True, True]


@pytest.mark.parametrize("unfamiliar", [squares(20, 3, grain=1), 255 - squares(20, 3), np.zeros((3, 80, 80), np.uint8)])
def test_other_grey_values_and_textures_are_not_familiar_whatever_the_network_finds(
    known: Familiarity, unfamiliar: np.ndarray
) -> None:
    warnings = known.warnings(features(len(unfamiliar), 2)[: len(unfamiliar)], unfamiliar)
    assert all("grey-value and texture distance" in warning for warning in warnings)


def test_the_appearance_does_not_depend_on_the_networks_input_size() -> None:
    small = compute_descriptors(squares(30, 0, side=80, grain=8))
    large = compute_descriptors(squares(30, 0, side=160, grain=16))
    assert np.abs(small - large).max() < 0.05


def test_the_limit_is_the_conformal_quantile_of_validation(known: Familiarity) -> None:
    distances = np.sort(known.distances(features(400, 1)))
    assert known.limit == pytest.approx(distances[int(np.ceil(0.995 * 401)) - 1])


def test_few_validation_images_give_their_largest_distance() -> None:
    few = features(MIN_IMAGES, 1)
    known = fit_images(features(300, 0), few)
    assert known is not None
    assert known.limit == pytest.approx(known.distances(few).max())


@pytest.mark.parametrize("sizes", [(MIN_IMAGES - 1, 100), (100, MIN_IMAGES - 1)])
def test_too_few_images_give_no_limit(sizes: tuple[int, int]) -> None:
    assert fit_images(features(sizes[0], 0), features(sizes[1], 1)) is None


def test_equal_features_give_no_limit() -> None:
    assert fit_images(np.ones((30, 4)), np.ones((30, 4))) is None


def test_the_stored_file_gives_the_same_warnings(known: Familiarity, tmp_path: Path) -> None:
    write_familiarity(known, tmp_path / "f.npz")
    stored = read_familiarity(tmp_path / "f.npz")
    others = np.concatenate([features(20, 3, direction=5), features(20, 4)])
    assert stored.distances(others) == pytest.approx(known.distances(others), abs=2e-3)
    assert (stored.limit, stored.n_validation) == (known.limit, 400)
    pictures = squares(40, 5, grain=1)
    assert known.warnings(others, pictures) == pytest.approx(stored.warnings(others, pictures))


def test_the_file_of_a_model_that_was_registered_without_appearance_is_read(known: Familiarity, tmp_path: Path) -> None:
    write_familiarity(replace(known, appearance=None), tmp_path / "f.npz")
    unfamiliar = squares(20, 3, grain=1)
    assert set(read_familiarity(tmp_path / "f.npz").warnings(features(20, 4), unfamiliar)) == {""}


def test_a_few_pixels_of_a_grey_value_that_no_training_image_has_are_not_infinitely_far() -> None:
    dark = (squares(300, 0) * 0.7).astype(np.uint8)
    known = fit_appearance(dark)
    marked = dark[:20].copy()
    marked[:, :3, :3] = 255
    assert (known.distances(marked) < 3 * known.distances(dark).max()).all()
