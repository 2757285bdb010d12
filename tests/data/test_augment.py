"""Augmentation: each operation does what its strength says, deterministically, and keeps the label."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

import muralab
from muralab.data.augment import TRANSFORMS, Augment, build_augmenter, draw_augmentation, preview_grid
from muralab.errors import SettingsError

SIZE = 41
EVERYTHING = Augment(zoom=0.2, rotate_degrees=20, shift=0.1, contrast=0.3, flip=True, **dict.fromkeys(TRANSFORMS, 0.5))


@pytest.fixture
def image():
    """Random grey levels; read-only, as in the cache."""
    pixels = np.random.default_rng(0).integers(40, 216, (SIZE, SIZE), dtype=np.uint8)
    pixels.setflags(write=False)
    return pixels


@pytest.fixture
def dot():
    """A bright patch in the middle of black."""
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    pixels[14:27, 17:24] = 200
    return pixels


def _results(augment: Augment, image, n: int = 20):
    apply = build_augmenter(augment, len(image))
    return [apply(image, seed) for seed in range(n)]


def test_all_strengths_off_return_the_image(image):
    np.testing.assert_array_equal(build_augmenter(Augment(), SIZE)(image, 5), image)


def larger(factor: int) -> np.ndarray:
    """Random fine detail: each pixel of the original of `factor` times the size."""
    return np.random.default_rng(0).integers(0, 256, (SIZE * factor, SIZE * factor), dtype=np.uint8)


def test_larger_squares_are_scaled_to_the_size_without_augmentation():
    found = build_augmenter(Augment(), SIZE, source=2 * SIZE)(larger(2), 0)
    expected = larger(2).reshape(SIZE, 2, SIZE, 2).mean((1, 3))
    assert np.abs(found - expected).max() <= 1


def test_what_is_read_from_larger_squares_lies_where_it_did():
    dots = np.zeros((3 * SIZE, 3 * SIZE), np.uint8)
    dots[9:15, 90:99] = 255
    still = Augment(rotate_degrees=1e-9)  # the affine map, which moves nothing
    found = build_augmenter(still, SIZE, source=3 * SIZE)(dots, 0)
    assert [tuple(axis) for axis in np.nonzero(found)] == [(3, 3, 3, 4, 4, 4), (30, 31, 32, 30, 31, 32)]


def test_larger_squares_keep_the_detail_that_interpolation_blurs():
    augment = Augment(rotate_degrees=20)
    small = larger(2).reshape(SIZE, 2, SIZE, 2).mean((1, 3)).astype(np.uint8)
    blurred, sharp = (
        np.mean(
            [build_augmenter(augment, SIZE, source=len(image))(image, seed)[9:32, 9:32].std() for seed in range(20)]
        )
        for image in (small, larger(2))
    )
    assert blurred < 0.8 * small.std()
    assert sharp > small.std()


def test_the_result_depends_on_the_seed_only(image):
    apply = build_augmenter(EVERYTHING, SIZE)
    first = apply(image, 7)
    assert (first.dtype, first.shape) == (np.uint8, (SIZE, SIZE))
    assert (first != apply(image, 8)).any()
    np.testing.assert_array_equal(first, build_augmenter(EVERYTHING, SIZE)(image, 7))


def test_threads_get_the_same_results(image):
    apply = build_augmenter(EVERYTHING, SIZE)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: apply(image, seed), range(40)))
    np.testing.assert_array_equal(results, _results(EVERYTHING, image, n=40))


# Affine map, contrast and brightness


def test_zoom_enlarges_and_shrinks(dot):
    areas = [int((result > 100).sum()) for result in _results(Augment(zoom=0.3), dot)]
    assert min(areas) < (dot > 100).sum() * 0.8
    assert max(areas) > (dot > 100).sum() * 1.2


def test_shift_moves_in_both_directions_up_to_its_strength(dot):
    centres = [np.argwhere(result > 100).mean(axis=0) for result in _results(Augment(shift=0.1), dot)]
    moved = np.array(centres) - SIZE // 2
    assert np.abs(moved).max() <= 0.1 * SIZE + 0.5
    assert (moved.min(axis=0) < -1).all()
    assert (moved.max(axis=0) > 1).all()


def test_rotation_keeps_the_centre_and_fills_with_black(image):
    results = _results(Augment(rotate_degrees=45), image)
    assert all(abs(int(result[20, 20]) - int(image[20, 20])) <= 1 for result in results)
    assert any(result[0, 0] == 0 for result in results)


def test_positive_angles_are_counter_clockwise(image, monkeypatch):
    draw = draw_augmentation(Augment(), 0)
    monkeypatch.setattr(
        "muralab.data.augment.draw_augmentation", lambda *_: type(draw)(**vars(draw) | {"angle_degrees": 90.0})
    )
    np.testing.assert_array_equal(build_augmenter(Augment(rotate_degrees=90), SIZE)(image, 0), np.rot90(image))


def test_contrast_darkens_and_brightens_without_moving(image):
    results = _results(Augment(contrast=0.3), image)
    means = [result.mean() for result in results]
    assert min(means) < image.mean() - 5 < image.mean() + 5 < max(means)
    assert all(np.corrcoef(result.ravel(), image.ravel())[0, 1] > 0.95 for result in results)


def test_flip_mirrors_about_half_of_the_images(image):
    results = _results(Augment(flip=True), image, n=200)
    flipped = [bool((result == image[:, ::-1]).all()) for result in results]
    kept = [bool((result == image).all()) for result in results]
    assert 70 < sum(flipped) < 130
    assert sum(flipped) + sum(kept) == 200


def test_a_strength_does_not_change_the_draws_of_another():
    alone, together = draw_augmentation(Augment(rotate_degrees=20), 3), draw_augmentation(EVERYTHING, 3)
    assert alone.angle_degrees == together.angle_degrees


def test_the_affine_map_and_contrast_are_pinned():
    image = np.add.outer(np.arange(SIZE), 3 * np.arange(SIZE)).astype(np.uint8)
    result = build_augmenter(Augment(zoom=0.15, rotate_degrees=20, shift=0.1, contrast=0.2), SIZE)(image, 11)
    assert result[::10, ::10].tolist() == [
        [4, 14, 49, 87, 117],
        [4, 34, 65, 95, 126],
        [4, 43, 74, 104, 135],
        [4, 52, 82, 113, 144],
        [4, 60, 55, 23, 4],
    ]


def test_the_affine_map_and_contrast_do_not_import_albumentations():
    code = (
        "import sys, numpy as np; from muralab.data.augment import Augment, build_augmenter;"
        "build_augmenter(Augment(zoom=0.1, contrast=0.1), 41)(np.zeros((41, 41), np.uint8), 0);"
        "sys.exit('albumentations' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(muralab.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


# Further strengths


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_strength_changes_pixels_and_keeps_shape_and_type(name, image):
    results = _results(Augment(**{name: 1.0}), image)
    assert any((result != image).any() for result in results)
    assert {(result.dtype, result.shape) for result in results} == {(image.dtype, image.shape)}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_strength_is_deterministic_and_differs_between_seeds(name, image):
    first, again = _results(Augment(**{name: 1.0}), image), _results(Augment(**{name: 1.0}), image)
    np.testing.assert_array_equal(first, again)
    assert len({result.tobytes() for result in first}) > 5


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_smaller_strength_changes_less(name):
    image = np.random.default_rng(0).integers(40, 216, (128, 128), dtype=np.uint8)
    weak, strong = (np.stack(_results(Augment(**{name: s}), image)).astype(int) for s in (0.2, 1.0))
    assert np.abs(weak - image).mean() < np.abs(strong - image).mean()


@pytest.mark.parametrize("name", ["gamma", "clahe", "blur", "noise"])
def test_a_thin_line_stays_visible_at_full_strength(name):
    line = cv2.line(np.zeros((128, 128), np.uint8), (40, 30), (80, 100), 1, thickness=2)
    beside = cv2.dilate(line, np.ones((9, 9), np.uint8)) - cv2.dilate(line, np.ones((5, 5), np.uint8))
    bone = np.random.default_rng(0).normal(160, 6, line.shape).astype(np.uint8) - 50 * line
    contrasts = [r[beside == 1].mean() - r[line == 1].mean() for r in _results(Augment(**{name: 1.0}), bone)]
    assert min(contrasts) > 0.5 * 50


def test_cutout_covers_at_most_two_percent():
    image = np.full((200, 200), 99, np.uint8)
    covered = [float((result == 0).mean()) for result in _results(Augment(cutout=1.0), image, n=100)]
    assert 0.01 < max(covered) <= 0.15**2


@pytest.fixture
def deformed_ramps():
    """Images whose grey level was the column, after elastic deformation; without the margin that black moves into."""
    ramp = np.tile(np.arange(128, dtype=np.uint8), (128, 1))
    return np.stack(_results(Augment(elastic=1.0), ramp, n=40))[:, 5:-5, 5:-5].astype(int)


def test_elastic_moves_pixels_by_at_most_3_percent(deformed_ramps):
    assert 2 < np.abs(deformed_ramps - np.arange(5, 123)).max() <= 0.03 * 128 + 1


def test_elastic_moves_little_from_outside_into_the_image():
    size = 299
    black = np.argwhere(np.stack(_results(Augment(elastic=1.0), np.full((size, size), 200, np.uint8))) < 200)[:, 1:]
    assert np.minimum(black, size - 1 - black).min(axis=1).max() < 0.02 * size


def test_elastic_does_not_fold_the_image(deformed_ramps):
    assert np.diff(deformed_ramps, axis=2).min() >= 0


# Limits and previews


@pytest.mark.parametrize(
    "bad",
    [
        {"zoom": 1.0},
        {"shift": -0.1},
        {"contrast": float("nan")},
        {"rotate_degrees": 181.0},
        {"gamma": 1.01},
        {"elastic": -0.1},
    ],
)
def test_a_strength_out_of_range_is_refused(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(SettingsError, match=rf"augment\.{name} must be in \[0, .*received {value}"):
        Augment(**bad)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_preview_shows_originals_above_draws(name, image):
    images = np.stack([image, image[::-1]])
    grid = preview_grid(images, Augment(**{name: 1.0}), draws=2)
    assert grid.shape == (3 * SIZE, 2 * SIZE)
    np.testing.assert_array_equal(grid[:SIZE], np.hstack([*images]))
    assert (grid[SIZE : 2 * SIZE] != grid[2 * SIZE :]).any()


def test_a_preview_without_images_is_refused():
    with pytest.raises(SettingsError, match="received 0 images"):
        preview_grid(np.empty((0, SIZE, SIZE), np.uint8), EVERYTHING)
