"""Sizes and pixels of resized images, as torchvision and mmsegmentation make them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torch_peers import import_peer

from deeplab_jax.inference.predictor import PredictorOptions, canvas_size, make_predictor
from deeplab_jax.inference.resizing import ResizedSource, ResizeRule, resize_back, resize_image, resize_label
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.types import Example


@pytest.mark.parametrize(
    ("size", "rule", "expected"),
    [
        ((375, 500), ResizeRule(520), (520, 693)),  # int(520 * 500 / 375)
        ((500, 334), ResizeRule(520), (778, 520)),
        ((520, 520), ResizeRule(520), (520, 520)),
        ((375, 500), ResizeRule(512, 2048), (512, 682)),
        ((200, 1000), ResizeRule(512, 2048), (410, 2048)),  # the longer side is the bound
        ((1024, 2048), ResizeRule(1025, 2049), (1025, 2049)),
    ],
)
def test_sizes(size, rule, expected):
    assert rule.size(size) == expected


def test_pixels_are_torchvisions(rng):
    functional = import_peer("torchvision.transforms.functional")
    from torchvision.transforms import InterpolationMode

    image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    label = Image.fromarray(rng.integers(0, 21, (40, 60), dtype=np.uint8))
    for shorter in (26, 55):
        rule = ResizeRule(shorter)
        np.testing.assert_array_equal(resize_image(np.asarray(image), rule), functional.resize(image, shorter))
        nearest = functional.resize(label, shorter, interpolation=InterpolationMode.NEAREST)
        np.testing.assert_array_equal(resize_label(np.asarray(label), rule), nearest)


def test_a_resized_source_scores_the_middle(rng):
    examples = [Example(str(k), rng.integers(0, 256, (20 + k, 31, 3), dtype=np.uint8), None) for k in range(2)]
    examples = [each._replace(label=each.image[..., 0]) for each in examples]
    source = ResizedSource(examples, None, (15, 14))
    assert len(source) == 2
    assert source.names == ["0", "1"]
    assert source.sizes == [(15, 14), (15, 14)]
    np.testing.assert_array_equal(source[1].label, examples[1].label[3:18, 8:22])
    np.testing.assert_array_equal(source[1].image[..., 0], source[1].label)
    resized = ResizedSource(examples, ResizeRule(10))
    assert resized.sizes == [(10, 15), (10, 14)] == [example.label.shape for example in (resized[0], resized[1])]


def test_results_come_back_at_the_images_own_size(rng):
    image = np.zeros((30, 44, 3), np.uint8)
    image[:, 22:] = 200
    seen = []

    def apply_fn(variables, images, *, train):
        seen.append(images.shape)
        return images.astype(np.float32) / 10

    options = PredictorOptions(InferenceConfig(resize_shorter=12, bucket=8))
    probabilities = make_predictor(apply_fn, {}, options)(image)
    assert seen == [(1, 17, 17, 3)]  # 12x17, in buckets of 8
    assert seen[0][1:3] == canvas_size((30, 44), options)
    assert probabilities.shape == (30, 44, 3)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)


def test_many_classes_are_resized_alike(rng):
    probabilities = rng.random((6, 7, 11)).astype(np.float32)
    together = resize_back(probabilities, (12, 9))
    for k in range(11):
        np.testing.assert_allclose(together[..., k], resize_back(probabilities[..., k : k + 1], (12, 9))[..., 0])


@pytest.mark.parametrize(("dtype", "num_channels"), [(np.uint16, 1), (np.float32, 6), (np.uint8, 4)])
def test_other_images_than_rgb_are_resized_too(rng, dtype, num_channels):
    image = (200 * rng.random((10, 12, num_channels))).astype(dtype)
    resized = resize_image(image, ResizeRule(20))
    assert resized.shape == (20, 24, num_channels)
    assert resized.dtype == dtype
    np.testing.assert_allclose(resized.mean(), image.mean(), rtol=0.1)
