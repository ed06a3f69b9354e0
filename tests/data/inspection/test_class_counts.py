"""Class counts against a count by hand, and the weights that follow from them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_sources import INFO

from deeplab_jax.data.datasets import camvid
from deeplab_jax.data.inspection.class_counts import (
    ClassCounts,
    count_classes,
    effective_number_weights,
    median_frequency_weights,
)
from deeplab_jax.data.sources.stored_labels import count_label
from deeplab_jax.types import Example

LABELS = [
    np.array([[0, 0, 0, 1], [0, 0, 255, 255]], np.uint8),
    np.array([[0, 0], [0, 0]], np.uint8),
    np.full((3, 3), 255, np.uint8),
    np.array([[1, 1, 1, 7]], np.uint8),  # 7 is no class
]


@pytest.fixture
def counts():
    source = [Example(str(k), np.zeros((*label.shape, 3), np.uint8), label) for k, label in enumerate(LABELS)]
    return count_classes(source, INFO, num_workers=2, title="counting")


def test_counts(counts):
    assert counts.pixels.tolist() == [9, 4, 0]
    assert counts.images.tolist() == [2, 2, 0]
    assert counts.pixels_beside.tolist() == [6 + 4, 6 + 3, 0]
    assert (counts.num_ignored, counts.num_images) == (2 + 9, 4)


def test_an_ignore_label_among_the_classes_is_no_class():
    info = INFO.__class__(**{name: getattr(INFO, name) for name in INFO.__slots__} | {"ignore_label": 1})
    pixels, num_ignored, _ = count_label(LABELS[0], info)
    assert (pixels.tolist(), num_ignored) == ([5, 0, 0], 1)


def test_counts_survive_json(counts):
    kept = ClassCounts.from_dict(json.loads(json.dumps(counts.to_dict())))
    assert kept.to_dict() == counts.to_dict()
    assert median_frequency_weights(kept) == median_frequency_weights(counts)


def test_median_frequency(counts):
    frequencies = np.array([9 / 10, 4 / 9])
    np.testing.assert_allclose(median_frequency_weights(counts), [*np.median(frequencies) / frequencies, 1])


def test_effective_number(counts):
    enough = (9 + 4) / 2
    beta = (enough - 1) / enough
    weights = [(1 - beta) / (1 - beta**number) for number in (9, 4)]
    np.testing.assert_allclose(effective_number_weights(counts), [*weights / np.mean(weights), 1])


def test_effective_numbers_of_millions_keep_their_digits():
    counts = ClassCounts.zeros(3)
    counts.pixels[:] = [10**10, 10**7, 10**4]
    weights = np.array(effective_number_weights(counts))
    # Rare classes by inverse frequency; the frequent one as if it had N pixels, a third of all, less e^-3 of them.
    np.testing.assert_allclose(weights[2] / weights[1], 1000, rtol=5e-3)
    np.testing.assert_allclose(weights[1] / weights[0], (10**10 / 3) / 10**7 * (1 - np.exp(-3)), rtol=5e-3)


@pytest.mark.parametrize("weights_of", [median_frequency_weights, effective_number_weights])
def test_nothing_seen_is_nothing_weighed(weights_of):
    assert weights_of(ClassCounts.zeros(2)) == (1.0, 1.0)


def test_camvid_has_segnets_weights(shared, tmp_path):
    """All but sign_symbol, which has more signs in it here; theirs have their median over 12 classes, with void.

    Frequencies in the whole split, in place of the images that have the class, would be off by factors of two.

    Source: class_weighting in segnet_train.prototxt of the SegNet tutorial
    """
    segnet = np.array([0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614])
    dataset = camvid.open_dataset(str(shared / "data" / "camvid"), str(tmp_path / "prepared"))
    counts = count_classes(dataset.open_split("train"), dataset.info, num_workers=0, title="counting")
    ratio = np.delete(median_frequency_weights(counts) / segnet, camvid.INFO.class_names.index("sign_symbol"))
    assert counts.num_images == 367
    np.testing.assert_allclose(ratio / np.median(ratio), 1, atol=0.12)  # their masks are not quite these
