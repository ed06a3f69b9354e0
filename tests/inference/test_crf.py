"""The CRF behind a network, in prediction and evaluation: on the image's own pixels, whatever the padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.inference import crf as crf_module
from deeplab_jax.inference.crf import refine
from deeplab_jax.inference.evaluator import evaluate_images
from deeplab_jax.inference.finite import all_finite, require_finite
from deeplab_jax.inference.predictor import PredictorOptions, make_async_predictor, make_predictor, make_segmenter
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.ops.crf.mean_field import mean_field
from deeplab_jax.ops.crf.parameters import CRFParams, CRFPreset
from deeplab_jax.types import DatasetInfo, Example, UserError

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
        options = PredictorOptions(InferenceConfig(pad_to=(33, 49)), crf=crf)
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
        make_predictor(_apply, {}, PredictorOptions(InferenceConfig(pad_to=size), crf=CRF))(example.image)
        for size in ((30, 40), (49, 60))
    ]
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-6)


def test_images_are_scored_one_by_one(example):
    label = example.label.copy()
    label[:2] = 255
    source = [example, Example("part", example.image, label)]
    predict = make_async_predictor(_apply, {}, PredictorOptions(InferenceConfig(pad_to=(33, 49)), crf=CRF))
    evaluation = evaluate_images(predict, source, INFO)
    assert evaluation.num_images == 2
    assert [row["name"] for row in evaluation.per_image] == ["disc", "part"]
    assert evaluation.confusion.sum() == 2 * label.size - 2 * label.shape[1]
    assert evaluation.scores["mean_iou"] > 0.95


def _fails(variables, images, *, train):
    """A network whose last pixel went wrong, as all of them do behind a lattice that was too small."""
    return _apply(variables, images, train=train).at[:, -1, -1, 1].set(jnp.nan)


@pytest.mark.parametrize("crf", [None, CRF])
def test_what_is_not_finite_never_becomes_a_class(example, crf):
    options = PredictorOptions(InferenceConfig(pad_to=(30, 40)), crf=crf)
    with pytest.raises(UserError, match=r"not finite: .*raise config\.model\.crf\.args capacity"):
        make_segmenter(_fails, {}, options)(example.image)()


def test_one_class_tells_whether_a_softmax_is_finite():
    logits = np.zeros((5, 2, 2, 3), np.float32)
    logits[1, 0, 1, 2] = np.nan
    logits[2, 1, 1, 1] = np.inf
    logits[3] = -np.inf
    logits[4, 0, 0] = (-np.inf, 3, 2)  # a class that cannot be: nothing is wrong with it
    finite = all_finite(jax.jit(jax.nn.softmax)(logits))
    np.testing.assert_array_equal(finite, [True, False, False, False, True])
    require_finite(finite[:1])
    with pytest.raises(UserError):
        require_finite(finite)


def test_widths_that_no_lattice_holds_are_named(example):
    narrow = CRFPreset(CRFParams(2.0, 2.0, 4.0, 20.0, 1e-12), 1)
    probabilities = np.full((*example.label.shape, 2), 0.5, np.float32)
    with pytest.raises(UserError, match=r"config\.inference\.crf: .*use larger"):
        refine(probabilities, example.image, narrow)


def test_on_an_accelerator_padding_is_masked_out(example, monkeypatch, rng):
    """So that images of all sizes share a few programs; the lattices are the host's here, which are quick to make."""
    probabilities = rng.dirichlet((1, 1), size=(33, 49)).astype(np.float32)
    want = refine(probabilities, example.image, CRF)
    seen = {}

    def on_host(unary, image, params, **options):
        seen.update(shape=image.shape, num_masked=int((~options["mask"]).sum()))
        return mean_field(unary, image, params, filtering="host", **options)

    monkeypatch.setattr(crf_module, "mean_field", on_host)
    monkeypatch.setattr(crf_module.jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(refine(probabilities, example.image, CRF), want, atol=1e-6)
    assert seen == {"shape": (33, 49, 3), "num_masked": 33 * 49 - 30 * 40}
