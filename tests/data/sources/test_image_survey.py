"""Images that 8-bit RGB would nearly blacken are told of when the data set is opened, with the setting to write."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_binary import SIZE, write_discs
from PIL import Image

from deeplab_jax.data.datasets import folder


def open_with_images(root, pixels, **fields):
    write_discs(root, classes={"class_names": ["background", "disc"], **fields}, num_images=3)
    for seed in range(3):
        Image.fromarray(pixels).save(root / "images" / f"{seed}.png")
    return folder.open_dataset(str(root), str(root.parent / "prepared"))


def ramp(highest, dtype, *channels):
    values = np.linspace(0, highest, SIZE[0] * SIZE[1]).reshape(SIZE).astype(dtype)
    return np.repeat(values[..., None], channels[0], axis=2) if channels else values


@pytest.mark.parametrize(("highest", "byte"), [(4095, 15), (65535, 255)])
def test_16_bits(tmp_path, highest, byte):
    dataset = open_with_images(tmp_path / "data", ramp(highest, np.uint16))
    (note,) = [note for note in dataset.notes if "images hold" in note]
    assert f"images hold 16 bits and values up to {highest} (3 looked at), of which 8-bit RGB keeps the high" in note
    assert f"0 to {byte} of 255" in note
    assert 'write "channels": 1, "dtype": "uint16" into classes.json and set config.model.normalization=dataset' in note
    assert dataset.open_split("train")[0].image.max() == byte  # as it says


def test_nothing_is_said_of_declared_images(tmp_path):
    dataset = open_with_images(tmp_path / "data", ramp(4095, np.uint16), channels=1, dtype="uint16")
    assert not any("images hold" in note for note in dataset.notes)
    assert dataset.open_split("train")[0].image.max() == 4095
    assert json.loads((tmp_path / "data" / "classes.json").read_text())["channels"] == 1


def test_shares_of_one_as_bytes(tmp_path):
    dataset = open_with_images(tmp_path / "data", ramp(1, np.uint8, 3))
    assert any("images are nearly black: the highest value of 3 is 1 of 255" in note for note in dataset.notes)


def test_ordinary_images(tmp_path):
    assert not any("images" in note[:8] for note in open_with_images(tmp_path / "data", ramp(90, np.uint8, 3)).notes)
