"""Labels in prepared copies come back as they were: ids of 8 and 16 bits, and classes that overlap."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from deeplab_jax.data.sources.stored_labels import count_label, decode_label, encode_label
from deeplab_jax.types import DatasetInfo

INFO = DatasetInfo("made", 20, 255, tuple(map(str, range(20))), ((0, 0, 0),) * 20, {})
MANY = dataclasses.replace(INFO, num_classes=847, ignore_label=65535)
OVERLAPPING = dataclasses.replace(INFO, task="multilabel")


def make_label(rng, info, ignored):
    label = rng.integers(0, 2 if info.label_maps else info.num_classes, (13, 18, *info.label_maps))
    if ignored:
        label[rng.random(label.shape) < 0.2] = info.ignore_label
    return label.astype(info.label_dtype)


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize(
    "info",
    [INFO, MANY, OVERLAPPING, dataclasses.replace(OVERLAPPING, num_classes=8, ignore_label=2)],
    ids=["8 bits", "16 bits", "20 maps", "8 maps"],
)
def test_labels_come_back(rng, info, ignored):
    label = make_label(rng, info, ignored)
    data = encode_label(label, info)
    back = decode_label(data, "made", info, (13, 18))
    assert back.dtype == label.dtype
    np.testing.assert_array_equal(back, label)


def test_maps_are_kept_as_bits(rng):
    """Noise cannot be compressed: 20 classes and 8 bits to a byte, and what PNG adds."""
    label = make_label(rng, dataclasses.replace(OVERLAPPING), ignored=False)
    assert len(encode_label(label, OVERLAPPING)) < 13 * 18 * 3 + 13 * 3 + 100


def test_pixels_are_counted(rng):
    label = make_label(rng, MANY, ignored=True)
    found = count_label(label, MANY)
    assert found.num_ignored == (label == 65535).sum()
    assert found.num_labelled == label.size - found.num_ignored
    assert found.of_class.tolist() == [(label == class_id).sum() for class_id in range(847)]
    maps = make_label(rng, OVERLAPPING, ignored=True)
    maps[:3] = 255
    found = count_label(maps, OVERLAPPING)
    assert (found.num_ignored, found.num_labelled) == (3 * 18, 10 * 18)
    assert found.of_class.tolist() == (maps == 1).sum(axis=(0, 1)).tolist()
