"""Dice, precision, recall, specificity, IoU and kappa against torchmetrics; HD95 and surface Dice against MONAI."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from torch_peers import import_peer

from deeplab_jax.metrics.confusion import confusion_on_host, maps_on_host, outcomes
from deeplab_jax.metrics.kappa import cohen_kappa
from deeplab_jax.metrics.overlap_ratios import overlap
from deeplab_jax.metrics.surface import surface_scores

pytestmark = pytest.mark.peer

IGNORE = 255
RATIOS = {"dice": "f1_score", "precision": "precision", "recall": "recall", "specificity": "specificity"}
RATIOS |= {"iou": "jaccard_index"}


def draw(rng, *shape):
    """Labels with ignored pixels, and predictions that are right in four of five pixels."""
    label = (rng.random(shape) < 0.3).astype(np.int64)
    prediction = np.where(rng.random(shape) < 0.8, label, 1 - label)
    label[rng.random(shape) < 0.1] = IGNORE
    return label, prediction


def test_binary_scores_are_those_of_torchmetrics(rng):
    torch = import_peer("torch")
    peer = import_peer("torchmetrics.functional.classification")
    label, prediction = draw(rng, 40, 50)
    confusion = confusion_on_host(label, prediction, num_classes=2, ignore_label=IGNORE)
    found = overlap(outcomes(confusion), ("ground", "object"))["per_class"]["object"]
    tensors = torch.from_numpy(prediction), torch.from_numpy(label)
    for score, name in RATIOS.items():
        theirs = getattr(peer, f"binary_{name}")(*tensors, ignore_index=IGNORE)
        assert found[score] == pytest.approx(float(theirs), abs=1e-6), score
    kappa = float(peer.binary_cohen_kappa(*tensors, ignore_index=IGNORE))
    assert cohen_kappa(confusion[0]) == pytest.approx(kappa, abs=1e-6)


def test_multilabel_scores_are_those_of_torchmetrics(rng):
    torch = import_peer("torch")
    peer = import_peer("torchmetrics.functional.classification")
    label, prediction = draw(rng, 30, 40, 3)
    confusion = maps_on_host(label, prediction.astype(bool), ignore_label=IGNORE)
    found = overlap(outcomes(confusion[None], maps=True), "abc")
    tensors = [torch.from_numpy(each.reshape(-1, 3)) for each in (prediction, label)]
    for score, name in RATIOS.items():
        each = getattr(peer, f"multilabel_{name}")(*tensors, num_labels=3, average=None, ignore_index=IGNORE)
        ours = [row[score] for row in found["per_class"].values()]
        np.testing.assert_allclose(ours, each.numpy(), atol=1e-6, err_msg=score)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0, 3.5])
def test_distances_of_outlines_are_those_of_monai(rng, tolerance):
    torch = import_peer("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monai = import_peer("monai.metrics")
    truth, prediction = np.zeros((2, 40, 48), bool)
    truth[5:20, 6:25], prediction[8:24, 4:20] = True, True
    prediction ^= rng.random(truth.shape) < 0.02
    found = surface_scores(truth, prediction, tolerance=tolerance)

    def one_hot(mask):
        return torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its deprecations
        pair = one_hot(prediction), one_hot(truth)
        distance = monai.compute_hausdorff_distance(*pair, percentile=95)
        dice = monai.compute_surface_dice(*pair, class_thresholds=[tolerance])
    assert found.distance == pytest.approx(float(distance), rel=1e-6)  # theirs is a float32
    assert found.dice == pytest.approx(float(dice), abs=1e-6)
