"""The threshold with the greatest IoU, against an evaluation at each threshold."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.metrics.thresholds import ProbabilityCounts, best_thresholds, count_probabilities
from deeplab_jax.ops.tasks import find_task

IGNORE = 255


def draw(rng, num_classes):
    """Labels of overlapping classes, some ignored, and probabilities of which some lie on a threshold exactly."""
    label = rng.integers(0, 2, (9, 31, num_classes)).astype(np.uint8)
    probabilities = np.clip(0.35 + 0.3 * label + rng.normal(0, 0.2, label.shape), 0, 1).astype(np.float32)
    probabilities[:4] = np.round(probabilities[:4], 3)
    label[rng.random(label.shape) < 0.2] = IGNORE
    return label, probabilities


def iou_at(label, probabilities, threshold):
    found = find_task("multilabel").decide(probabilities, [threshold])
    known, truth = label != IGNORE, label == 1
    axes = (0, 1)
    return (found & truth).sum(axes) / ((found & known) | truth).sum(axes)


def test_it_is_what_an_evaluation_at_every_threshold_finds(rng):
    label, probabilities = draw(rng, 3)
    counts = count_probabilities(jnp.asarray(label), jnp.asarray(probabilities), ignore_label=IGNORE)
    found = best_thresholds(counts, "abc")
    each = np.array([iou_at(label, probabilities, step / 1000) for step in range(1, 1000)])
    for k, name in enumerate("abc"):
        row = found["per_class"][name]
        assert row["iou"] == each[:, k].max()
        assert row["iou"] == iou_at(label, probabilities, row["threshold"])[k]
        assert row["iou_at_even"] == each[499, k]
    assert found["thresholds"] == [found["per_class"][name]["threshold"] for name in "abc"]


def test_the_object_of_a_binary_task_is_the_second_probability(rng):
    label, probabilities = draw(rng, 1)
    pair = jnp.asarray(np.concatenate([1 - probabilities, probabilities], axis=-1))
    binary = count_probabilities(jnp.asarray(label[..., 0]), pair, ignore_label=IGNORE)
    alone = count_probabilities(jnp.asarray(label), jnp.asarray(probabilities), ignore_label=IGNORE)
    np.testing.assert_array_equal(binary.present, alone.present)
    np.testing.assert_array_equal(binary.absent, alone.absent)
    assert np.sum(binary.present) + np.sum(binary.absent) == (label != IGNORE).sum()


def test_of_equal_ones_it_is_the_nearest_to_even_odds():
    absent, present = np.zeros((2, 2, 1000), np.int64)
    absent[0, 100], present[0, 700] = 5, 5  # any threshold from 0.101 to 0.7 is perfect
    found = best_thresholds(ProbabilityCounts(absent, present), ("there", "nowhere"))
    assert found["per_class"]["there"] == pytest.approx({"threshold": 0.5, "iou": 1.0, "iou_at_even": 1.0})
    assert found["per_class"]["nowhere"] == {"threshold": 0.5, "iou": None, "iou_at_even": None}
