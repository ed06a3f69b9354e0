"""Windows cover every pixel, agree with the whole image where they should, and leave no seam."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.inference.forward import make_forward
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.inference.sliding_windows import sliding_windows, window_starts, window_weights


@pytest.mark.parametrize(
    ("size", "window", "stride", "starts"),
    [
        (1024, 769, 513, (0, 255)),
        (2048, 769, 513, (0, 513, 1026, 1279)),
        (769, 769, 513, (0,)),
        (300, 769, 513, (0,)),
    ],
)
def test_starts_are_mmsegmentations(size, window, stride, starts):
    """h_grids = ceil((h - crop) / stride) + 1; a window that would end outside is moved back."""
    assert window_starts(size, window, stride) == starts


@pytest.mark.parametrize("stride", [3, 5, 8])
def test_every_pixel_is_covered_and_no_window_leaves_the_image(stride):
    for size in range(8, 40):
        covered = np.zeros(size, int)
        for start in window_starts(size, 8, stride):
            assert 0 <= start <= size - 8
            covered[start : start + 8] += 1
        assert covered.min() >= 1


def test_weights_are_positive_and_fade_at_the_edges():
    weights = window_weights((9, 6), "smooth")
    assert weights.min() > 0
    assert weights.max() == weights[4, 2] == 1.0
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    assert (np.abs(np.diff(weights, axis=0)) <= 0.2 + 1e-12).all()


def pixelwise(images):
    x = images.astype(jnp.float32)
    return jnp.concatenate([x, -x.sum(-1, keepdims=True)], axis=-1)


@pytest.mark.parametrize("blend", ["smooth", "uniform"])
def test_a_pixelwise_network_gives_what_the_whole_image_gives(rng, blend):
    """Its logits do not depend on the window: each pixel must count exactly once, whatever covers it."""
    images = rng.integers(0, 256, (2, 21, 34, 3), dtype=np.uint8)
    for window, stride in (((8, 9), (5, 4)), ((30, 12), (30, 11)), ((40, 40), (1, 1))):
        apply = jax.jit(sliding_windows(pixelwise, InferenceConfig(window=window, stride=stride, blend=blend)))
        np.testing.assert_allclose(apply(images), pixelwise(images), rtol=1e-5)


def test_uniform_windows_are_averaged_by_count(rng):
    """Against mmsegmentation's sum and count, written out."""
    images = rng.normal(size=(1, 13, 17, 3)).astype(np.float32)

    def apply(x):
        return x * x.mean(axis=(1, 2), keepdims=True)

    total, count = np.zeros_like(images), np.zeros((13, 17, 1))
    for top in (0, 4, 5):
        for left in (0, 4, 8, 9):
            patch = images[:, top : top + 8, left : left + 8]
            total[:, top : top + 8, left : left + 8] += apply(patch)
            count[top : top + 8, left : left + 8] += 1
    got = sliding_windows(apply, InferenceConfig(window=(8, 8), stride=(4, 4), blend="uniform"))(jnp.asarray(images))
    np.testing.assert_allclose(got, total / count[None], atol=1e-5)


def test_a_smooth_blend_leaves_no_seam(rng):
    """Windows that disagree by a constant meet in a ramp instead of a step."""
    images = np.zeros((1, 16, 64, 3), np.float32)
    images[..., 40:, :] = 1.0  # so that the windows' means differ

    def apply(x):
        return jnp.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)

    steps = {}
    for blend in ("smooth", "uniform"):
        result = sliding_windows(apply, InferenceConfig(window=(16, 32), stride=(16, 16), blend=blend))(
            jnp.asarray(images)
        )
        steps[blend] = float(jnp.abs(jnp.diff(result[0, 8, :, 0])).max())
    assert steps["smooth"] < 0.05
    assert steps["uniform"] > 0.2


def test_windows_work_within_scales_and_mirrors(rng):
    images = rng.integers(0, 256, (1, 20, 26, 3), dtype=np.uint8)
    kernel = jnp.asarray(rng.normal(size=(3, 4)) / 100, jnp.float32)

    def apply_fn(variables, images, *, train):
        return images.astype(jnp.float32) @ variables["kernel"]

    whole, slid = (
        jax.jit(make_forward(apply_fn, settings, align_corners=False))({"kernel": kernel}, images)
        for settings in (
            InferenceConfig(scales=(0.75, 1.0), flip=True),
            InferenceConfig(scales=(0.75, 1.0), flip=True, window=(9, 12), stride=(6, 8)),
        )
    )
    np.testing.assert_allclose(whole, slid, atol=1e-5)


def test_the_default_stride_is_two_thirds():
    assert InferenceConfig(window=(769, 769)).window_stride == (512, 512)
    assert InferenceConfig(window=(512, 512)).window_stride == (341, 341)
    assert InferenceConfig(window=(769, 769), stride=(513, 513)).window_stride == (513, 513)
