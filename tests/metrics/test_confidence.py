"""Calibration error against a loop over pixels and against torchmetrics."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from torch_peers import import_peer

from deeplab_jax.metrics.calibration import CalibrationCounts, calibration, count_confidence

IGNORE = 255


@pytest.fixture(scope="module")
def case():
    """(label, probabilities, what is counted) of a network that is too sure of itself."""
    rng = np.random.default_rng(3)
    logits = 2 * rng.normal(size=(37, 50, 5)).astype(np.float32)
    probabilities = np.asarray(jax.nn.softmax(logits))
    label = np.where(rng.random((37, 50)) < 0.6, logits.argmax(-1), rng.integers(0, 5, (37, 50))).astype(np.uint8)
    label[:4] = IGNORE
    label[5, 5] = 17  # no class
    count = jax.jit(lambda a, b: count_confidence(a, b, ignore_label=IGNORE))
    return label, probabilities, CalibrationCounts(*(np.asarray(part) for part in count(label, probabilities)))


def test_counts_like_a_pixel_loop(case):
    label, probabilities, counts = case
    bins = [[] for _ in range(15)]
    for truth, row in zip(label.ravel(), probabilities.reshape(-1, 5), strict=True):
        if truth < 5:
            bins[min(int(np.ceil(row.max() * 15)) - 1, 14)].append((row.max(), row.argmax() == truth))
    scores = calibration(counts)
    total = sum(map(len, bins))
    error = 0.0
    for found, members in zip(scores["bins"], bins, strict=True):
        assert found["fraction"] == pytest.approx(len(members) / total)
        if members:
            confidence, accuracy = np.mean(np.array(members, np.float64), axis=0)
            assert found["confidence"] == pytest.approx(confidence, abs=1e-6)
            assert found["accuracy"] == pytest.approx(accuracy)
            error += len(members) / total * abs(confidence - accuracy)
        else:
            assert (found["confidence"], found["accuracy"]) == (None, None)
    assert scores["ece"] == pytest.approx(error, abs=1e-6)
    assert json.loads(json.dumps(scores)) == scores


@pytest.mark.slow  # its import alone takes seconds
def test_error_is_torchmetrics(case):
    torchmetrics, torch = import_peer("torchmetrics.classification"), import_peer("torch")

    label, probabilities, counts = case
    label = np.where(label < 5, label, IGNORE).astype(np.int64)
    metric = torchmetrics.MulticlassCalibrationError(num_classes=5, n_bins=15, ignore_index=IGNORE)
    expected = metric(torch.from_numpy(probabilities.reshape(-1, 5).copy()), torch.from_numpy(label.reshape(-1)))
    assert calibration(counts)["ece"] == pytest.approx(float(expected), abs=1e-5)


def test_many_sure_pixels_lose_no_digits():
    probabilities = np.zeros((1024, 1024, 2), np.float32)
    probabilities[..., 0] = 0.99
    probabilities[..., 1] = 0.01
    label = np.zeros((1024, 1024), np.uint8)
    counts = jax.jit(lambda a, b: count_confidence(a, b, ignore_label=IGNORE))(label, probabilities)
    assert calibration(counts)["ece"] == pytest.approx(0.01, abs=1e-6)


def test_nothing_counted_has_no_error():
    zeros = np.zeros(15)
    assert calibration(CalibrationCounts(zeros, zeros, zeros))["ece"] is None
