"""ONNX files, run in ONNX Runtime: any number of images, the network's logits and ids."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from small_network import PAD_PIXEL, expected_logits, make_network, patches, program_of

from deeplab_jax.canvas import Canvas
from deeplab_jax.export.formats import onnx as onnx_format
from deeplab_jax.export.program import make_program
from deeplab_jax.ops.pooling import average_pool, max_pool
from deeplab_jax.types import UserError

pytest.importorskip("onnxruntime", reason="needs onnx and onnxruntime")
CANVAS = Canvas((33, 49), 0)


def program_for(function):
    """A program of one function of the images, as floats."""
    return make_program(
        lambda variables, images, train: function(images.astype(jnp.float32)),
        {},
        outputs=("logits",),
        canvas=Canvas((12, 16), 0),
        pad_pixel=PAD_PIXEL,
    )


@pytest.mark.parametrize(("align_corners", "padding"), [(True, "tf_same"), (False, "symmetric")])
def test_the_logits_ids_and_probabilities_of_any_number_of_images(tmp_path, rng, align_corners, padding):
    network = make_network(align_corners, padding)
    names = ("class_ids", "logits", "probabilities")
    onnx_format.write(program_of(*network, outputs=names, canvas=CANVAS), tmp_path / "model.onnx")
    run = onnx_format.load(tmp_path / "model.onnx")
    for batch_size in (1, 3):
        images = patches(rng, (batch_size, 33, 49))
        outputs = run(images)
        expected = expected_logits(*network, images, CANVAS)
        np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4)  # the same sums in another order
        np.testing.assert_array_equal(outputs["class_ids"], outputs["logits"].argmax(-1))
        assert outputs["class_ids"].dtype == np.uint8
        assert len(np.unique(outputs["class_ids"])) > 1
        np.testing.assert_allclose(outputs["probabilities"].sum(-1), 1, atol=1e-5)


FUNCTIONS = {
    "strided indexing": lambda x: x[:, ::2, 1::3],
    "slices": lambda x: x[:, 2:9, :-3, 1:],
    "one row": lambda x: x[:, 5] + x[:, :, 3:4, 2].mean(1, keepdims=True),
    "slices of both kinds": lambda x: x[:, 1::2, 4:9],
    "average pooling": lambda x: average_pool(x, (3, 2), stride=2, padding="tf_same"),
    "max pooling": lambda x: max_pool(x, 3, stride=2, padding="ceil"),
    "max pooling with holes": lambda x: max_pool(x, 3, rate=2),
    "hard gate": lambda x: jnp.clip(x / 100, 0.2, 1.5) * lax.rsqrt(x + 1),
    "choice": lambda x: jnp.where(x > 99, jnp.square(x), -x) + lax.integer_pow(x, 3),
    "broadcast": lambda x: jnp.concatenate([x, jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)], axis=-1),
    "sigmoid": lambda x: lax.logistic(x / 50) + jnp.tanh(x / 50) + lax.sqrt(x) + jnp.log(x + 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_operation(tmp_path, rng, name):
    program = program_for(FUNCTIONS[name])
    onnx_format.write(program, tmp_path / "model.onnx")
    images = patches(rng, (2, 12, 16))
    got = onnx_format.load(tmp_path / "model.onnx")(images)["logits"]
    np.testing.assert_allclose(got, program.run(images)["logits"], rtol=1e-5, atol=1e-5)


def test_an_operation_that_it_does_not_know_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"--format=onnx: cannot hold the operation '\w+'; use") as error:
        onnx_format.write(program_for(lambda x: jnp.sort(x, axis=1)), tmp_path / "model.onnx")
    assert "\n" not in str(error.value)
