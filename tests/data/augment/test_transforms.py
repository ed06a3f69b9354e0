"""Random scale, crop, flip and colour: image and mask stay together, everything in its range."""

from __future__ import annotations

import numpy as np
import pytest

from deeplab_jax.data.augment import transforms

PAD_PIXEL = (124, 116, 104)


def crop(plan, image, label, crop_size):
    out_image, out_label = np.empty((*crop_size, 3), np.uint8), np.empty(crop_size, np.uint8)
    transforms.crop_into(
        plan, image, label, out_image=out_image, out_label=out_label, pad_pixel=PAD_PIXEL, ignore_label=255
    )
    return out_image, out_label


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.6, 0.77, 1.0, 1.3, 2.0])
def test_image_and_mask_do_not_shift_against_each_other(rng, scale, flip):
    """The mask is a function of the pixels: in the crop it still has to be, up to interpolation."""
    rows, columns = np.mgrid[:120, :120]
    image = np.stack([rows * 2, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    mask = np.stack([rows * 2, columns * 2], axis=-1).astype(np.uint8)
    for axis in (0, 1):
        plan = transforms.plan_crop(rng, (120, 120), crop_size=(65, 65), scale=scale, flip=flip)
        out_image, out_label = crop(plan, image, np.ascontiguousarray(mask[..., axis]), (65, 65))
        height, width = plan.target
        difference = out_image[:height, :width, axis].astype(float) - out_label[:height, :width]
        # The nearest of two neighbours that differ by 2 is within 1 of the interpolated value,
        # another 0.5 is rounding; and errors of both signs cancel out unless there is a shift.
        assert np.abs(difference).max() <= 1.5
        assert abs(difference.mean()) < 0.26


def test_shifting_the_mask_by_one_pixel_would_be_noticed(rng):
    rows = np.mgrid[:120, :120][0]
    image = np.repeat((rows * 2)[..., None], 3, axis=-1).astype(np.uint8)
    shifted = np.ascontiguousarray(np.roll(image[..., 0], 1, axis=0))
    plan = transforms.CropPlan((10, 10), (40, 40), (65, 65), flip=False)
    out_image, out_label = crop(plan, image, shifted, (65, 65))
    assert abs((out_image[..., 0].astype(float) - out_label).mean()) > 1.5


def test_scale_one_copies_pixels(rng):
    image = rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    label = rng.integers(0, 5, (50, 60), dtype=np.uint8)
    plan = transforms.CropPlan((7, 9), (33, 33), (33, 33), flip=True)
    out_image, out_label = crop(plan, image, label, (33, 33))
    np.testing.assert_array_equal(out_image, image[7:40, 9:42][:, ::-1])
    np.testing.assert_array_equal(out_label, label[7:40, 9:42][:, ::-1])


def test_small_images_are_padded_below_and_to_the_right(rng):
    image, label = np.full((20, 30, 3), 9, np.uint8), np.full((20, 30), 3, np.uint8)
    plan = transforms.plan_crop(rng, (20, 30), crop_size=(65, 33), scale=1.5, flip=True)
    out_image, out_label = crop(plan, image, label, (65, 33))
    assert plan.target == (30, 33)
    assert (out_image[:30] == 9).all()
    assert (out_label[:30] == 3).all()
    assert (out_image[30:] == PAD_PIXEL).all()
    assert (out_label[30:] == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (333, 500), (513, 513), (1200, 40)])
@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 1.9, 4.0])
def test_plans_stay_inside_the_image_and_the_crop(rng, size, scale):
    for _ in range(20):
        plan = transforms.plan_crop(rng, size, crop_size=(513, 257), scale=scale, flip=True)
        for origin, window, target, axis, crop_axis in zip(
            plan.origin, plan.window, plan.target, size, (513, 257), strict=True
        ):
            assert 0 <= origin <= origin + window <= axis
            assert window >= 1
            assert 1 <= target <= crop_axis
            if target < crop_axis:
                assert window == axis  # padded only where the whole axis is in
            # Windows are whole pixels: the scale is off by less than half of one at either end.
            if target > 1:
                assert window * scale == pytest.approx(target, abs=0.5 + 0.5 * scale)


def test_crops_reach_every_place(rng):
    origins = {transforms.plan_crop(rng, (12, 12), crop_size=(9, 9), scale=1.0, flip=True).origin for _ in range(300)}
    assert origins == {(top, left) for top in range(4) for left in range(4)}


def balanced(rng, label, max_share, num_tries=10):
    plans = []

    def draw():
        plans.append(transforms.plan_crop(rng, label.shape, crop_size=(9, 9), scale=1.0, flip=True))
        return plans[-1]

    chosen = transforms.plan_balanced_crop(draw, label, max_share=max_share, num_tries=num_tries, ignore_label=255)
    assert chosen is plans[-1]
    return chosen, len(plans)


def share(plan, label):
    (top, left), (height, width) = plan.origin, plan.window
    window = label[top : top + height, left : left + width]
    counts = np.bincount(window[window != 255], minlength=2)
    return counts.max() / max(counts.sum(), 1)


def test_a_crop_of_nearly_one_class_is_drawn_again(rng):
    label = np.zeros((60, 60), np.uint8)
    label[:, 40:] = 1
    label[:8] = 255
    shares = [share(balanced(rng, label, 0.75, num_tries=300)[0], label) for _ in range(50)]
    assert max(shares) <= 0.75
    assert max(share(balanced(rng, label, 1.0)[0], label) for _ in range(50)) == 1.0


def test_tries_end(rng):
    assert balanced(rng, np.zeros((60, 60), np.uint8), 0.75, num_tries=7)[1] == 7
    assert balanced(rng, np.full((60, 60), 255, np.uint8), 0.75, num_tries=3)[1] == 3
    assert balanced(rng, np.zeros((60, 60), np.uint8), 1.0)[1] == 1


def test_the_first_crop_is_kept_where_it_is_balanced(rng):
    label = (np.indices((60, 60)).sum(axis=0) % 2).astype(np.uint8)
    assert balanced(rng, label, 0.75)[1] == 1


def test_flip_is_fair_and_optional(rng):
    flips = [transforms.plan_crop(rng, (9, 9), crop_size=(9, 9), scale=1.0, flip=True).flip for _ in range(400)]
    assert 140 < sum(flips) < 260  # six standard deviations around 200
    assert not any(transforms.plan_crop(rng, (9, 9), crop_size=(9, 9), scale=1.0, flip=False).flip for _ in range(50))


def test_scales(rng):
    continuous = [transforms.random_scale(rng, min_scale=0.5, max_scale=2.0, scale_step=0) for _ in range(500)]
    assert 0.5 <= min(continuous) < 0.52
    assert 1.98 < max(continuous) < 2.0
    stepped = {transforms.random_scale(rng, min_scale=0.5, max_scale=2.0, scale_step=0.25) for _ in range(200)}
    assert stepped == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}
    assert transforms.random_scale(rng, min_scale=0.7, max_scale=0.7, scale_step=0) == 0.7
    assert transforms.random_scale(rng, min_scale=0.7, max_scale=0.7, scale_step=0.1) == 0.7


def test_samples_have_random_numbers_of_their_own():
    draws = {
        (seed, position): transforms.sample_rng(seed, position).random()
        for seed in (0, 1, -1, 2**40)
        for position in range(50)
    }
    assert len(set(draws.values())) == len(draws)
    assert transforms.sample_rng(1, 7).random() == draws[1, 7]
    assert transforms.sample_rng(1, 7, stream=2).random() not in draws.values()


def test_colors_change_in_place_and_only_there(rng):
    canvas = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    before = canvas.copy()
    changed = 0
    for position in range(20):
        np.copyto(canvas, before)
        transforms.change_colors(transforms.draw_colors(transforms.sample_rng(0, position)), canvas[:30, :20])
        np.testing.assert_array_equal(canvas[30:], before[30:])
        np.testing.assert_array_equal(canvas[:30, 20:], before[:30, 20:])
        changed += not np.array_equal(canvas, before)
    assert changed >= 15  # each of four changes has an even chance: 1 in 16 does nothing


def test_colors_stay_near(rng):
    """Grey stays grey, and no grey level moves further than brightness and contrast can take it."""
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for position in range(50):
        image = grey.copy()
        transforms.change_colors(transforms.draw_colors(transforms.sample_rng(1, position)), image)
        assert (image == image[..., :1]).all()
        lowest = np.clip(np.arange(256) - 32, 0, 255) * 0.5 - 1
        highest = np.clip((np.arange(256) + 32) * 1.5, 0, 255) + 1
        assert (image[0, :, 0] >= lowest).all()
        assert (image[0, :, 0] <= highest).all()


@pytest.mark.parametrize("flip", [False, True])
def test_more_maps_than_opencv_resizes_at_once(rng, flip):
    label = rng.integers(0, 2, (20, 30, 300), dtype=np.uint8)
    plan = transforms.CropPlan(origin=(2, 3), window=(15, 20), target=(9, 33), flip=flip)
    image, out_image = np.zeros((20, 30, 3), np.uint8), np.zeros((9, 33, 3), np.uint8)
    whole, single = np.zeros((9, 33, 300), np.uint8), np.zeros((9, 33), np.uint8)
    options = {"out_image": out_image, "pad_pixel": (0, 0, 0), "ignore_label": 255}
    transforms.crop_into(plan, image, label, out_label=whole, **options)
    for k in (0, 127, 128, 299):
        transforms.crop_into(plan, image, np.ascontiguousarray(label[..., k]), out_label=single, **options)
        np.testing.assert_array_equal(whole[..., k], single)
