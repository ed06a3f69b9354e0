"""Scores of real masks, counted as their benchmarks' scripts do it and by torchmetrics."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image
from torch_peers import import_peer

from deeplab_jax.data.datasets.cityscapes import CLASSES, to_label_ids
from deeplab_jax.metrics.confusion import confusion_matrix, scores

NUM_ADE = 150
IGNORE = 255


@pytest.fixture(scope="module")
def ade(shared_folder):
    """(label, prediction) of ADE20K's sample images: ids from 0, void as 255."""
    sample = shared_folder / "data/fixtures/ade20k/sampleData"
    pairs = []
    for path in sorted((sample / "annotations").glob("*.png")):
        label = np.array(Image.open(path))
        prediction = np.array(Image.open(sample / "predictions" / path.name))
        pairs.append((label - np.uint8(1), np.where(prediction == 0, 1, prediction) - np.uint8(1)))
    return pairs


@pytest.fixture(scope="module")
def shared_folder(request):
    folder = request.config.rootpath.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of real images and weights beside the repository")
    return folder


def count(pairs, num_classes):
    step = jax.jit(lambda a, b: confusion_matrix(a, b, num_classes=num_classes, ignore_label=IGNORE))
    return sum(np.asarray(step(label, prediction), np.int64) for label, prediction in pairs)


def test_ade20k_as_its_script_counts(ade):
    """Areas of intersection and union by histogram, summed over the images, classes from 1."""
    intersection = union = 0
    right = labelled = 0
    for label, prediction in ade:
        truth, found = (label + np.uint8(1)).astype(int), (prediction + np.uint8(1)).astype(int)
        found = found * (truth > 0)
        same = found * (found == truth)
        areas = [np.histogram(part, bins=NUM_ADE, range=(1, NUM_ADE))[0] for part in (same, found, truth)]
        intersection, union = intersection + areas[0], union + areas[1] + areas[2] - areas[0]
        right, labelled = right + np.sum((found == truth) & (truth > 0)), labelled + np.sum(truth > 0)
    got = scores(count(ade, NUM_ADE), [str(k) for k in range(NUM_ADE)])
    present = union > 0
    np.testing.assert_allclose(
        [np.nan if value is None else value for value in got["iou_per_class"].values()],
        np.where(present, intersection / np.maximum(union, 1), np.nan),
    )
    assert got["mean_iou"] == pytest.approx((intersection[present] / union[present]).mean())
    assert got["pixel_accuracy"] == pytest.approx(right / labelled)


@pytest.mark.slow  # its import alone takes seconds
def test_ade20k_as_torchmetrics_counts(ade):
    torchmetrics, torch = import_peer("torchmetrics.classification"), import_peer("torch")

    labels, predictions = (
        torch.from_numpy(np.concatenate([part.ravel() for part in parts]).astype(np.int64))
        for parts in zip(*ade, strict=True)
    )
    confusion = torchmetrics.MulticlassConfusionMatrix(NUM_ADE, ignore_index=IGNORE)(predictions, labels)
    ours = count(ade, NUM_ADE)
    np.testing.assert_array_equal(ours, confusion.numpy())
    got = scores(ours, [str(k) for k in range(NUM_ADE)])
    per_class = torchmetrics.MulticlassJaccardIndex(NUM_ADE, average="none", ignore_index=IGNORE)
    theirs = per_class(predictions, labels).numpy()
    ours = np.array([0.0 if value is None else value for value in got["iou_per_class"].values()])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)  # theirs is float32
    accuracy = torchmetrics.MulticlassAccuracy(NUM_ADE, average="micro", ignore_index=IGNORE)
    assert got["pixel_accuracy"] == pytest.approx(float(accuracy(predictions, labels)), abs=1e-6)


def test_cityscapes_as_its_script_counts(shared_folder, rng):
    """The script counts label ids, all 34, and leaves the rows of ignored ones out of a class's false positives."""
    folder = shared_folder / "data/fixtures/cityscapes/gtFine"
    label_ids = np.array(Image.open(next(folder.glob("*_labelIds.png"))))
    table = np.full(256, IGNORE, np.uint8)
    table[to_label_ids(np.arange(len(CLASSES)))] = np.arange(len(CLASSES))
    train_ids = table[label_ids]
    prediction = np.where((train_ids == IGNORE) | (rng.random(train_ids.shape) < 0.2), 3, train_ids).astype(np.uint8)
    prediction = np.roll(prediction, 3, axis=1)

    theirs = np.zeros((34, 34), np.int64)
    np.add.at(theirs, (label_ids.ravel().astype(int), to_label_ids(prediction).ravel().astype(int)), 1)
    counted = [each.label_id for each in CLASSES]
    expected = {}
    for each in CLASSES:
        k = each.label_id
        hit, missed = theirs[k, k], theirs[k].sum() - theirs[k, k]
        false = theirs[[other for other in counted if other != k], k].sum()
        expected[each.name] = hit / (hit + missed + false) if hit + missed + false else None
    got = scores(count([(train_ids, prediction)], len(CLASSES)), [each.name for each in CLASSES])
    assert got["iou_per_class"] == pytest.approx(expected)
