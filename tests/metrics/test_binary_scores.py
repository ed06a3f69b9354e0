"""Dice, precision, recall, specificity, kappa and the distances of outlines, against pixel by pixel counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from deeplab_jax.metrics.confusion import outcomes
from deeplab_jax.metrics.kappa import cohen_kappa, kappas
from deeplab_jax.metrics.overlap_ratios import overlap
from deeplab_jax.metrics.surface import surface_scores, surfaces

NAMES = ("background", "object", "never")


def random_masks(rng, num_images=4, shape=(9, 11)):
    """Class ids of truth and prediction; class 2 is in neither, class 1 not in the last image."""
    truth, prediction = (rng.integers(0, 2, (num_images, *shape)) for _ in range(2))
    truth[-1] = prediction[-1] = 0
    return truth, prediction


def confusions(truth, prediction):
    counts = np.zeros((len(truth), 3, 3), np.int64)
    for image, (row, column) in itertools.product(range(len(truth)), itertools.product(range(3), repeat=2)):
        counts[image, row, column] = ((truth[image] == row) & (prediction[image] == column)).sum()
    return counts


def ratios(truth, prediction):
    """The scores of one class's masks, by their definitions."""
    tp, fp = (truth & prediction).sum(), (~truth & prediction).sum()
    fn, tn = (truth & ~prediction).sum(), (~truth & ~prediction).sum()
    return {
        "iou": tp / (tp + fp + fn),
        "dice": 2 * tp / (2 * tp + fp + fn),
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "specificity": tn / (tn + fp),
    }


def test_ratios_of_the_split_and_means_over_images(rng):
    truth, prediction = random_masks(rng)
    found = overlap(outcomes(confusions(truth, prediction)), NAMES)
    for class_id, name in enumerate(NAMES[:2]):
        row = found["per_class"][name]
        for score, value in ratios(truth == class_id, prediction == class_id).items():
            assert row[score] == pytest.approx(value, abs=1e-12), score
        present = range(4 if class_id == 0 else 3)
        assert row["num_images"] == len(present)
        for score in ("iou", "dice"):
            each = [
                ratios(truth[i] == class_id, prediction[i] == class_id)[score] for i in present if class_id or i < 3
            ]
            each += [1.0] if class_id == 0 else []  # the last image is all background
            assert row[f"{score}_per_image"] == pytest.approx(np.mean(each), abs=1e-12)
    assert found["per_class"]["never"]["dice"] is None
    assert found["per_class"]["never"]["specificity"] == 1.0
    assert found["over"]["dice"] == "2 of 3 classes"
    assert found["mean"]["dice"] == pytest.approx(
        np.mean([found["per_class"][name]["dice"] for name in NAMES[:2]]), abs=1e-12
    )


def test_a_score_of_one_class_says_so():
    found = overlap(outcomes(np.array([[[9, 0], [0, 0]]])), ("ground", "object"))
    assert found["over"]["iou"] == "one class, 'ground', the only one present of 2"


def test_kappa_is_agreement_beyond_chance(rng):
    truth, prediction = (rng.integers(0, 3, 500) for _ in range(2))
    confusion = np.array([[((truth == i) & (prediction == j)).sum() for j in range(3)] for i in range(3)])
    observed = (truth == prediction).mean()
    chance = sum((truth == i).mean() * (prediction == i).mean() for i in range(3))
    assert cohen_kappa(confusion) == pytest.approx((observed - chance) / (1 - chance), abs=1e-12)
    assert cohen_kappa(np.array([[7, 0], [0, 0]])) is None
    assert kappas(np.array([[[5, 1], [2, 4]], [[9, 0], [0, 0]]]), ("a", "b"))["over"] == (
        "one class, 'a', the only one present of 2"
    )


def outline_by_hand(mask):
    height, width = mask.shape
    return [
        (i, j)
        for i, j in zip(*np.nonzero(mask), strict=True)
        if any(
            not (0 <= i + a < height and 0 <= j + b < width) or not mask[i + a, j + b]
            for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )
    ]


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5])
def test_outlines_are_as_far_apart_as_their_pixels(rng, tolerance):
    truth, prediction = np.zeros((2, 20, 24), bool)
    truth[3:12, 2:13] = True
    prediction[5:16, 4:11] = True
    prediction ^= rng.random(prediction.shape) < 0.05
    lines = outline_by_hand(truth), outline_by_hand(prediction)
    distances = [[min(math.dist(p, q) for q in other) for p in line] for line, other in (lines, lines[::-1])]
    found = surface_scores(truth, prediction, tolerance=tolerance)
    assert found.distance == pytest.approx(max(np.percentile(each, 95) for each in distances), abs=1e-9)
    near = sum(distance <= tolerance for each in distances for distance in each)
    assert found.dice == pytest.approx(near / sum(map(len, distances)), abs=1e-12)


def test_a_class_on_one_side_only_counts_in_the_dice_and_is_said():
    square = np.zeros((8, 8), bool)
    square[2:5, 2:5] = True
    both, one_sided = surface_scores(square, square), surface_scores(square, ~square & False)
    found = surfaces([[both], [one_sided], [None]], ("object",))["per_class"]["object"]
    assert found == {"hd95": 0.0, "surface_dice": 0.5, "num_images": 2, "num_one_sided": 1}
