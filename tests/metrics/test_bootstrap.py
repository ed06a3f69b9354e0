"""Intervals of mean IoU against draws scored one by one."""

from __future__ import annotations

import numpy as np
import pytest

from deeplab_jax.metrics.bootstrap import confidence_interval, image_counts
from deeplab_jax.metrics.confusion import scores


@pytest.fixture
def confusions(rng):
    """Thirty images, some with classes that others lack."""
    found = []
    for _ in range(30):
        confusion = rng.integers(0, 20, (3, 3)) + np.diag(rng.integers(0, 150, 3))
        confusion[rng.random(3) < 0.3] = 0
        found.append(confusion)
    return found


def test_the_interval_is_that_of_draws_scored_one_by_one(confusions, rng):
    interval = confidence_interval([image_counts(confusion) for confusion in confusions], num_resamples=2000)
    draws = [sum(confusions[k] for k in rng.integers(0, 30, 30)) for _ in range(2000)]
    expected = np.quantile([scores(draw, "abc")["mean_iou"] for draw in draws], [0.025, 0.975])
    # Two independent samples of 2000: their quantiles differ by some hundredths of the interval's length.
    assert interval["mean_iou"] == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))
    low, high = interval["mean_iou"]
    assert low < scores(sum(confusions), "abc")["mean_iou"] < high
    assert (interval["level"], interval["num_resamples"]) == (0.95, 2000)


def test_the_same_images_give_the_same_interval(confusions):
    counts = [image_counts(confusion) for confusion in confusions]
    assert confidence_interval(counts) == confidence_interval(counts)
    low, high = confidence_interval(counts, level=0.5)["mean_iou"]
    wide_low, wide_high = confidence_interval(counts)["mean_iou"]
    assert wide_low < low < high < wide_high


def test_images_that_are_all_alike_leave_no_doubt(confusions):
    low, high = confidence_interval([image_counts(confusions[0])] * 10)["mean_iou"]
    assert low == pytest.approx(high)


def test_one_image_or_none_says_nothing(confusions):
    assert confidence_interval([])["mean_iou"] is None
    assert confidence_interval([image_counts(confusions[0])])["mean_iou"] is None
    assert confidence_interval([image_counts(np.zeros((3, 3), np.int64))] * 5)["mean_iou"] is None
