"""Confusion matrices against a pixel loop, scores against numbers worked out by hand."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.metrics.confusion import confusion_matrix, scores

IGNORE = 255


def test_confusion_counts_like_a_pixel_loop(rng):
    label = rng.integers(0, 4, size=(3, 6, 5)).astype(np.uint8)
    label[rng.random(label.shape) < 0.3] = IGNORE
    label[0, 0, 0] = 17  # no class: not counted, and not anybody else's count either
    prediction = rng.integers(0, 4, size=label.shape)
    want = np.zeros((4, 4), np.int64)
    for truth, guess in zip(label.ravel(), prediction.ravel(), strict=True):
        if truth < 4:
            want[truth, guess] += 1
    count = jax.jit(lambda t, p: confusion_matrix(t, p, num_classes=4, ignore_label=IGNORE))
    got = count(label, prediction)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, want)
    per_image = jax.vmap(count)(label, prediction)
    np.testing.assert_array_equal(per_image.sum(axis=0), want)
    np.testing.assert_array_equal(per_image[1], count(label[1], prediction[1]))


def test_an_ignore_label_inside_the_classes_is_ignored():
    label = jnp.asarray([0, 1, 1, 2])
    got = confusion_matrix(label, jnp.zeros(4, int), num_classes=3, ignore_label=1)
    np.testing.assert_array_equal(got, [[1, 0, 0], [0, 0, 0], [1, 0, 0]])


def test_scores_by_hand():
    #          predicted a  b  c  d
    confusion = np.array(
        [
            [6, 2, 0, 0],  # truth a: 8 pixels
            [1, 3, 0, 0],  # truth b: 4
            [0, 0, 0, 0],  # c is predicted nowhere and true nowhere: absent
            [0, 4, 0, 0],  # truth d: 4, never found
        ]
    )
    got = scores(confusion, "abcd")
    assert got["iou_per_class"] == pytest.approx({"a": 6 / 9, "b": 3 / 10, "c": None, "d": 0.0})
    assert got["mean_iou"] == pytest.approx((6 / 9 + 3 / 10) / 3)
    assert got["pixel_accuracy"] == pytest.approx(9 / 16)
    assert got["mean_accuracy"] == pytest.approx((6 / 8 + 3 / 4) / 3)
    assert got["frequency_weighted_iou"] == pytest.approx((8 * 6 / 9 + 4 * 3 / 10) / 16)
    assert json.loads(json.dumps(got)) == got


def test_a_class_that_is_only_predicted_counts_as_zero():
    got = scores(np.array([[3, 1], [0, 0]]), ("a", "b"))
    assert got["iou_per_class"] == {"a": 0.75, "b": 0.0}
    assert got["mean_iou"] == 0.375
    assert got["mean_accuracy"] == 0.75


def test_nothing_seen_has_no_scores():
    got = scores(np.zeros((2, 2), np.int64), ("a", "b"))
    assert got["mean_iou"] is None
    assert got["pixel_accuracy"] is None


def test_large_counts_do_not_overflow():
    pixels = 2**40
    got = scores(np.array([[pixels, 0], [pixels, 2 * pixels]]), ("a", "b"))
    assert got["mean_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_one_name_per_class():
    with pytest.raises(ValueError, match="3 class names"):
        scores(np.zeros((2, 2), np.int64), ("a", "b", "c"))
