from __future__ import annotations

import numpy as np
import pytest

from muralab.data.augment import Augment, build_augmenter, draw_augmentation, preview_grid
from muralab.errors import SettingsError

SIZE = 41
EVERYTHING = Augment(zoom=0.2, rotate_degrees=20, shift=0.1, contrast=0.3, flip=True)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(40, 216, (SIZE, SIZE), dtype=np.uint8)


@pytest.fixture
def dot():
    """A bright patch in the middle of black."""
    picture = np.zeros((SIZE, SIZE), np.uint8)
    picture[14:27, 17:24] = 200
    return picture


def _results(augment: Augment, image, n: int = 20):
    apply = build_augmenter(augment, SIZE)
    return [apply(image, seed) for seed in range(n)]


def test_all_strengths_off_return_the_picture(image):
    np.testing.assert_array_equal(build_augmenter(Augment(), SIZE)(image, 5), image)


def test_same_seed_same_picture_another_seed_another(image):
    apply = build_augmenter(EVERYTHING, SIZE)
    first = apply(image, 7)
    assert (first.dtype, first.shape) == (np.uint8, (SIZE, SIZE))
    np.testing.assert_array_equal(first, build_augmenter(EVERYTHING, SIZE)(image, 7))
    assert (first != apply(image, 8)).any()


def test_the_picture_itself_is_not_changed(image):
    before = image.copy()
    build_augmenter(EVERYTHING, SIZE)(image, 3)
    np.testing.assert_array_equal(image, before)


def test_zoom_goes_in_and_out(dot):
    areas = [int((result > 100).sum()) for result in _results(Augment(zoom=0.3), dot)]
    assert min(areas) < (dot > 100).sum() * 0.8
    assert max(areas) > (dot > 100).sum() * 1.2


def test_shift_moves_up_to_its_strength_both_ways(dot):
    centres = [np.argwhere(result > 100).mean(axis=0) for result in _results(Augment(shift=0.1), dot)]
    moved = np.array(centres) - SIZE // 2
    assert np.abs(moved).max() <= 0.1 * SIZE + 0.5
    assert (moved.min(axis=0) < -1).all()
    assert (moved.max(axis=0) > 1).all()


def test_rotation_keeps_the_middle_and_fills_with_black(image):
    results = _results(Augment(rotate_degrees=45), image)
    assert all(abs(int(result[20, 20]) - int(image[20, 20])) <= 1 for result in results)
    assert any(result[0, 0] == 0 for result in results)


def test_quarter_turn_goes_counter_clockwise(image, monkeypatch):
    draw = draw_augmentation(Augment(), 0)
    monkeypatch.setattr(
        "muralab.data.augment.draw_augmentation", lambda *_: type(draw)(**vars(draw) | {"angle_degrees": 90.0})
    )
    np.testing.assert_array_equal(build_augmenter(Augment(rotate_degrees=90), SIZE)(image, 0), np.rot90(image))


def test_contrast_darkens_and_brightens_and_moves_nothing(image):
    results = _results(Augment(contrast=0.3), image)
    means = [result.mean() for result in results]
    assert min(means) < image.mean() - 5 < image.mean() + 5 < max(means)
    assert all(np.corrcoef(result.ravel(), image.ravel())[0, 1] > 0.95 for result in results)


def test_flip_mirrors_about_half_of_the_pictures(image):
    flipped = [bool((result == image[:, ::-1]).all()) for result in _results(Augment(flip=True), image, n=200)]
    kept = [bool((result == image).all()) for result in _results(Augment(flip=True), image, n=200)]
    assert 70 < sum(flipped) < 130
    assert sum(flipped) + sum(kept) == 200


def test_one_strength_does_not_move_the_draws_of_another():
    alone, together = draw_augmentation(Augment(rotate_degrees=20), 3), draw_augmentation(EVERYTHING, 3)
    assert alone.angle_degrees == together.angle_degrees


@pytest.mark.parametrize("bad", [{"zoom": 1.0}, {"shift": -0.1}, {"contrast": float("nan")}, {"rotate_degrees": 181.0}])
def test_strength_out_of_range_is_refused(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(SettingsError, match=rf"augment\.{name} must be in \[0, .*received {value}"):
        Augment(**bad)


def test_preview_shows_originals_above_draws(image):
    images = np.stack([image, image[::-1]])
    grid = preview_grid(images, EVERYTHING, draws=2)
    assert grid.shape == (3 * SIZE, 2 * SIZE)
    np.testing.assert_array_equal(grid[:SIZE], np.hstack([*images]))
    assert (grid[SIZE : 2 * SIZE] != grid[2 * SIZE :]).any()


def test_preview_without_images_is_refused():
    with pytest.raises(SettingsError, match="received 0 images"):
        preview_grid(np.empty((0, SIZE, SIZE), np.uint8), EVERYTHING)
