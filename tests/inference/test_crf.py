"""The CRF behind a network, in prediction and evaluation: on the image's own pixels, whatever the padding."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.inference.evaluator import evaluate_images
from deeplab_jax.inference.predictor import PredictorOptions, make_predictor, make_segmenter
from deeplab_jax.ops.crf_parameters import CRFParams, CRFPreset
from deeplab_jax.types import DatasetInfo, Example

CRF = CRFPreset(CRFParams(2.0, 2.0, 4.0, 20.0, 10.0), 5)
INFO = DatasetInfo("toy", 2, 255, ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), {"val": 2})


def _apply(variables, images, *, train):
    """A network that sees brightness, blurred by noise that it was born with."""
    noise = np.random.default_rng(1).normal(size=(1, 64, 64)).astype(np.float32)
    score = (images.astype(jnp.float32).mean(-1) - 127.5) / 60 + 1.5 * noise[:, : images.shape[1], : images.shape[2]]
    return jnp.stack([-score, score], axis=-1)


@pytest.fixture
def example(rng):
    """A bright disc on a dark ground."""
    row, column = np.mgrid[:30, :40]
    label = ((row - 15) ** 2 + (column - 20) ** 2 < 80).astype(np.uint8)
    image = np.clip(60 + 130 * label[..., None] + rng.normal(size=(30, 40, 3), scale=5), 0, 255).astype(np.uint8)
    return Example("disc", image, label)


def test_a_crf_mends_what_noise_spoilt(example):
    accuracy = {}
    for crf in (None, CRF):
        options = PredictorOptions(crf=crf, pad_to=(33, 49))
        ids = make_segmenter(_apply, {}, options)(example.image)()
        assert ids.shape == example.label.shape
        accuracy[crf] = (ids == example.label).mean()
        probabilities = make_predictor(_apply, {}, options)(example.image)
        np.testing.assert_array_equal(probabilities.argmax(-1), ids)
        np.testing.assert_allclose(probabilities.sum(-1), 1.0, atol=1e-5)
    assert accuracy[None] < 0.9
    assert accuracy[CRF] > 0.99


def test_padding_changes_nothing(example):
    probabilities = [
        make_predictor(_apply, {}, PredictorOptions(crf=CRF, pad_to=size))(example.image)
        for size in ((30, 40), (49, 60))
    ]
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-6)


def test_images_are_scored_one_by_one(example):
    label = example.label.copy()
    label[:2] = 255
    source = [example, Example("part", example.image, label)]
    segment = make_segmenter(_apply, {}, PredictorOptions(crf=CRF, pad_to=(33, 49)))
    evaluation = evaluate_images(segment, source, INFO)
    assert evaluation.num_images == 2
    assert [row["name"] for row in evaluation.per_image] == ["disc", "part"]
    assert evaluation.confusion.sum() == 2 * label.size - 2 * label.shape[1]
    assert evaluation.scores["mean_iou"] > 0.95
