"""That the checker is on, and what it lets through."""

from __future__ import annotations

import os

import jax
import jaxtyping
import numpy as np
import pytest
from jax import export

from deeplab_jax.losses.cross_entropy import softmax_cross_entropy
from deeplab_jax.ops.resize import resize_nearest

pytestmark = pytest.mark.skipif(os.environ.get("CHECK_TYPES") == "0", reason="CHECK_TYPES=0")


def loss_of(label):
    return softmax_cross_entropy(np.zeros((1, 2, 3, 4), np.float32), label, ignore_label=255)


def test_labels_may_be_unsigned_and_of_numpy():
    for dtype in (np.uint8, np.int32):
        assert loss_of(np.zeros((1, 2, 3), dtype))[1] == 6


@pytest.mark.parametrize("label", [np.zeros((1, 3, 2), np.uint8), np.zeros((1, 2, 3), np.float32)])
def test_another_size_or_type_is_refused(label):
    with pytest.raises(jaxtyping.TypeCheckError, match="'label'"):
        loss_of(label)


def test_sizes_may_be_symbols():
    height, width = export.symbolic_shape("h, w")
    label = jax.ShapeDtypeStruct((1, height, width), np.uint8)
    assert jax.eval_shape(lambda x: resize_nearest(x, (height, width)), label).shape == (1, height, width)


@pytest.mark.usefixtures("unchecked_types")
def test_a_test_may_switch_it_off():
    resize_nearest(np.zeros((1, 2, 3), np.float32), (4, 4))
