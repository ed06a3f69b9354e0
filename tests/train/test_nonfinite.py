"""What is not finite in a skipped step is named: the module, forward or backward, and the file."""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import make_batch, make_toy

from deeplab_jax.ops.mesh import shard_batch
from deeplab_jax.train.nonfinite import make_explain_skip

NAMES = ("a", "b", "c", "d")


@jax.custom_vjp
def spoil_backward(x):
    return x


spoil_backward.defvjp(lambda x: (x, None), lambda _, gradient: (gradient * jnp.nan,))


class Spoiled(nn.Module):
    """Two modules; the gradient between them is not finite."""

    @nn.compact
    def __call__(self, image, *, train):
        return nn.Dense(3, name="last")(spoil_backward(nn.Dense(3, name="first")(image / 255)))


@pytest.fixture(scope="module")
def explained():
    """(state, batch) -> the line, for the toy with accumulation, by one compiled program."""
    state, step, mesh = make_toy(dropout=0.3, accumulation_steps=2)
    return state, functools.partial(explain_with, make_explain_skip(step, mesh), step, mesh)


def explain_with(explain, step, mesh, state, batch):
    state, metrics = step(jax.tree.map(jnp.copy, state), shard_batch(batch, mesh))
    assert metrics["skipped"]
    return explain(state, shard_batch(batch, mesh), NAMES)


def batch_of(**changes):
    batch = make_batch(0, size=4)
    return batch._replace(image=batch.image.astype(np.float32))._replace(**changes)


def test_an_image_is_named_by_its_file(explained):
    state, explain = explained
    batch = batch_of()
    batch.image[2, 3, 4] = np.nan
    assert explain(state, batch) == "first not finite: forward, the output of backbone/conv; caused by c"


def test_a_label_that_no_class_has_is_the_loss(explained):
    state, explain = explained
    batch = batch_of()
    batch.label[1, 3, 3] = 99
    assert explain(state, batch) == "first not finite: the loss, of logits that are finite; caused by b"


def test_a_kernel_is_named_and_no_file(explained):
    state, explain = explained
    params = jax.tree.map(jnp.copy, state.params)
    params["head"]["logits"]["kernel"] = params["head"]["logits"]["kernel"].at[0, 0, 0, 0].set(jnp.nan)
    assert explain(dataclasses.replace(state, params=params), batch_of()) == (
        "first not finite: forward, the output of head/logits (its kernel is not finite); "
        "each file of the batch does it: the weights or the learning rate, not the data"
    )


def test_a_backward_pass_is_named_by_where_its_gradient_arrives():
    state, step, mesh = make_toy(model=Spoiled())
    line = explain_with(make_explain_skip(step, mesh), step, mesh, state, batch_of())
    assert line.startswith("first not finite: backward, the gradient at the output of first; each file")
