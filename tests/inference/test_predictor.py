"""One image of any size: padding, cropping, and a bounded number of compilations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.canvas import pad_image
from deeplab_jax.inference.predictor import PredictorOptions, make_predictor, make_segmenter
from deeplab_jax.inference.settings import InferenceConfig

VARIABLES = {"scale": jnp.float32(0.05)}


def apply_toy(variables, images, *, train):
    """A pixelwise network: padding can reach its result only through a fault in cropping."""
    x = images.astype(jnp.float32) * variables["scale"]
    return jnp.stack([x[..., 0], x[..., 1], x[..., 2], x.sum(-1) / 3 + 0.1], axis=-1)


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (33, 17)])
def test_result_has_the_image_size_and_no_trace_of_padding(rng, size):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    options = PredictorOptions(InferenceConfig(flip=True, bucket=16), pad_pixel=(255, 0, 255))
    probabilities = make_predictor(apply_toy, VARIABLES, options)(image)
    expected = jax.nn.softmax(apply_toy(VARIABLES, image, train=False))
    assert isinstance(probabilities, np.ndarray)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)  # jit may round exp differently


def test_segmenter_is_the_argmax_of_the_predictor(rng):
    image = rng.integers(0, 256, (21, 40, 3), dtype=np.uint8)
    options = PredictorOptions(InferenceConfig(bucket=32))
    class_ids = make_segmenter(apply_toy, VARIABLES, options)(image)()
    assert class_ids.dtype == np.uint8
    np.testing.assert_array_equal(class_ids, make_predictor(apply_toy, VARIABLES, options)(image).argmax(-1))


def test_padding_is_made_of_pad_pixel(rng):
    seen = []

    def apply_fn(variables, images, *, train):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), images)
        return apply_toy(variables, images, train=train)

    image = rng.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    make_predictor(apply_fn, VARIABLES, PredictorOptions(InferenceConfig(pad_to=(4, 6)), pad_pixel=(1, 2, 3)))(image)
    jax.effects_barrier()
    (padded,) = seen
    assert padded.shape == (1, 4, 6, 3)
    np.testing.assert_array_equal(padded[0, :3, :5], image)
    assert (padded[0, 3] == (1, 2, 3)).all()
    assert (padded[0, :, 5] == (1, 2, 3)).all()


def test_missing_values_are_replaced_by_pad_pixel():
    image = np.array([[[1.0, np.nan], [np.inf, 4.0]]], np.float32)
    padded = pad_image(image, (2, 2), (0.25, 0.5))
    np.testing.assert_array_equal(padded, np.float32([[[1.0, 0.5], [0.25, 4.0]], [[0.25, 0.5], [0.25, 0.5]]]))


def test_sizes_of_one_bucket_share_a_compilation(rng):
    traced = []

    def apply_fn(variables, images, *, train):
        traced.append(images.shape)
        return apply_toy(variables, images, train=train)

    predict = make_predictor(apply_fn, VARIABLES, PredictorOptions(InferenceConfig(bucket=32)))
    for size in [(40, 50), (64, 65), (34, 63), (20, 33)]:
        predict(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    assert traced == [(1, 65, 65, 3), (1, 33, 33, 3)]
