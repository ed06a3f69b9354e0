"""Boundary scores against erosions and dilations written out, and against distances by comparing all pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from deeplab_jax.metrics import boundary

IGNORE = 255
NAMES = ("a", "b", "c", "d")
SQUARE = np.ones((3, 3), bool)


@pytest.fixture
def pair(rng):
    """A label map of regions with a border of void around them, and a prediction that is a little off."""
    field = ndimage.gaussian_filter(rng.normal(size=(40, 54)), 4)
    label = np.digitize(field, np.quantile(field, [0.4, 0.75])).astype(np.uint8)
    prediction = np.roll(label, 2, axis=1)
    prediction[5:9, 5:9] = 3
    edges = ndimage.grey_dilation(label, (3, 3)) != ndimage.grey_erosion(label, (3, 3))
    label[edges] = IGNORE
    return label, prediction


def band_by_erosion(mask, width):
    """As the authors' program: what an erosion, with nothing beyond the image, takes away."""
    return mask & ~ndimage.binary_erosion(mask, SQUARE, iterations=width)


@pytest.mark.parametrize("width", [1, 3, 7])
def test_a_band_is_what_erosion_removes(rng, width):
    mask = ndimage.gaussian_filter(rng.normal(size=(31, 45)), 3) > 0
    np.testing.assert_array_equal(boundary.inner_band(mask, width), band_by_erosion(mask, width))
    assert not boundary.inner_band(np.zeros((5, 6), bool), width).any()


def test_the_band_is_two_percent_of_the_diagonal():
    assert boundary.band_width((375, 500)) == round(0.02 * 625)
    assert boundary.band_width((8, 8)) == 1


def test_boundary_iou_like_masks_one_by_one(pair):
    label, prediction = pair
    known = label != IGNORE
    counts = boundary.count_boundaries(label, prediction, num_classes=4, ignore_label=IGNORE, fraction=0.04)
    scores = boundary.boundary_iou(counts, NAMES, fraction=0.04)
    width = round(0.04 * np.hypot(40, 54))
    expected = []
    for class_id in range(4):
        truth = band_by_erosion(label == class_id, width)
        predicted = band_by_erosion(prediction == class_id, width) & known
        expected.append((truth & predicted).sum() / (truth | predicted).sum())
    assert list(scores["per_class"].values()) == pytest.approx(expected)
    assert scores["per_class"]["d"] == 0.0  # predicted, never true
    assert scores["mean"] == pytest.approx(np.mean(expected))
    assert scores["band_fraction"] == 0.04
    assert json.loads(json.dumps(scores)) == scores


def test_boundary_iou_of_the_truth_is_one_and_of_absent_classes_none(pair):
    label, _ = pair
    filled = np.where(label == IGNORE, 0, label)
    counts = boundary.count_boundaries(filled, filled, num_classes=4, ignore_label=IGNORE)
    assert boundary.boundary_iou(counts, NAMES)["per_class"] == {"a": 1.0, "b": 1.0, "c": 1.0, "d": None}
    nothing = np.full((9, 9), IGNORE, np.uint8)
    counts = boundary.count_boundaries(nothing, np.zeros_like(nothing), num_classes=4, ignore_label=IGNORE)
    assert boundary.boundary_iou(counts, NAMES)["mean"] is None


def slow_confusion(label, prediction, chosen):
    confusion = np.zeros((4, 4), np.int64)
    for truth, predicted in zip(label[chosen], prediction[chosen], strict=True):
        confusion[truth, predicted] += 1
    return confusion


def test_a_trimap_is_the_dilated_void(pair):
    label, prediction = pair
    counts = boundary.count_trimap(label, prediction, num_classes=4, ignore_label=IGNORE, max_width=9)
    void = label == IGNORE
    for width in (1, 2, 9):
        inside = ndimage.binary_dilation(void, SQUARE, iterations=width) & ~void
        expected = slow_confusion(label, prediction, inside)
        np.testing.assert_array_equal(counts.void[:width].sum(axis=0), expected)
    curve = boundary.trimap(counts, NAMES)
    assert curve["around"] == "void"  # a thin border around regions
    assert curve["widths"] == list(range(1, 10))
    assert curve["pixel_accuracy"][8] == pytest.approx(np.trace(expected) / expected.sum())
    assert curve["pixel_accuracy"][0] < curve["pixel_accuracy"][8]
    assert json.loads(json.dumps(curve)) == curve


def test_without_a_border_distances_are_to_other_classes(rng):
    label = rng.choice(4, p=[0.94, 0.03, 0.02, 0.01], size=(26, 23)).astype(np.uint8)
    label[10:, 8:] = IGNORE  # a whole object that nobody labelled is no border
    prediction = rng.integers(0, 4, label.shape).astype(np.uint8)
    counts = boundary.count_trimap(label, prediction, num_classes=4, ignore_label=IGNORE, max_width=6)
    place = np.argwhere(label != IGNORE)
    found = label[label != IGNORE]
    steps = np.abs(place[:, None] - place[None]).max(axis=-1)
    nearest = np.where(found[:, None] != found[None], steps, 99).min(axis=1)
    for width in range(1, 7):
        chosen = place[nearest <= width]
        expected = slow_confusion(label, prediction, tuple(chosen.T))
        np.testing.assert_array_equal(counts.label[:width].sum(axis=0), expected)
    assert boundary.trimap(counts, NAMES)["around"] == "labels"
    assert boundary.trimap(counts, NAMES, around="void")["around"] == "void"


def test_an_image_of_one_class_has_no_boundary():
    label = np.zeros((8, 9), np.uint8)
    counts = boundary.count_trimap(label, label, num_classes=4, ignore_label=IGNORE)
    assert not counts.void.any()
    assert not counts.label.any()
    assert boundary.trimap(counts, NAMES)["mean_iou"] == [None] * boundary.MAX_WIDTH


@pytest.mark.parametrize(
    ("folder", "around"),
    [("pets/SegmentationClass", "void"), ("voc2012_sample/SegmentationClass", "void"), ("camvid/masks", "labels")],
)
def test_borders_of_real_masks_are_told_from_unlabelled_things(shared, folder, around):
    total = None
    for path in sorted((shared / "data" / folder).glob("*.png"))[:12]:
        label = np.array(Image.open(path))
        counts = boundary.count_trimap(label, np.zeros_like(label), num_classes=21, ignore_label=IGNORE, max_width=2)
        total = counts if total is None else boundary.TrimapCounts(*map(sum, zip(total, counts, strict=True)))
    assert boundary.trimap(total, [str(k) for k in range(21)])["around"] == around
