"""Augmentations added by name: like slow twins, a function of seed and position, and checked when they come back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from made_sources import INFO, MadeSource

from deeplab_jax import registry
from deeplab_jax.config import Config, DataConfig, PartConfig, from_dict, to_dict
from deeplab_jax.data.augment.transforms import sample_rng
from deeplab_jax.data.loading.loader import make_loader
from deeplab_jax.types import Example, UserError
from deeplab_jax.validation import validate

FLIP, TURN = PartConfig("flip.vertical"), PartConfig("rot90.rot90")


class NoiseSource(MadeSource):
    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng(index)
        size = self._made_sizes[index]
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        return Example(f"image{index}", image, rng.integers(0, 3, size, dtype=np.uint8))


SOURCE = NoiseSource([(12 + index, 30 - index) for index in range(6)])


def take(number, *augment, start=0, seed=3, num_workers=2, crop_size=(17, 17)):
    config = DataConfig(batch_size=4, crop_size=crop_size, num_workers=num_workers, photometric=True, augment=augment)
    with make_loader(config, SOURCE, INFO, seed=seed, pad_pixel=(9, 8, 7)) as batches:
        batches.set_state({"position": start} if start else batches.get_state())
        return list(itertools.islice(batches, number))


def upside_down(array):
    """Pixel by pixel."""
    turned = np.empty_like(array)
    for row, column in np.ndindex(array.shape[:2]):
        turned[row, column] = array[len(array) - 1 - row, column]
    return turned


def quarter_turn(array):
    """Pixel by pixel, against the clock."""
    turned = np.empty_like(array)
    for row, column in np.ndindex(array.shape[:2]):
        turned[len(array) - 1 - column, row] = array[row, column]
    return turned


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label, other.label)


def test_crops_are_mirrored_upside_down_like_a_slow_twin():
    """All else stays as it is: what is added draws from a stream of its own."""
    num_flipped = 0
    for sample, (plain, mirrored) in enumerate(zip(rows(take(4)), rows(take(4, FLIP)), strict=True)):
        flipped = sample_rng(3, sample, 3).random() < 0.5
        num_flipped += flipped
        for before, after in zip(plain, mirrored, strict=True):
            np.testing.assert_array_equal(after, upside_down(before) if flipped else before)
    assert 0 < num_flipped < 16


def test_crops_are_turned_like_a_slow_twin():
    seen = set()
    for sample, (plain, turned) in enumerate(zip(rows(take(4)), rows(take(4, TURN)), strict=True)):
        quarters = int(sample_rng(3, sample, 3).integers(4))
        seen.add(quarters)
        for before, after in zip(plain, turned, strict=True):
            for _ in range(quarters):
                before = quarter_turn(before)
            np.testing.assert_array_equal(after, before)
    assert seen == {0, 1, 2, 3}


def rows(batches):
    return [pair for batch in batches for pair in zip(batch.image, batch.label, strict=True)]


def test_a_probability_of_0_and_of_1():
    assert_same(take(1, PartConfig("flip.vertical", {"probability": 0.0})), take(1))
    for plain, mirrored in zip(
        rows(take(1)), rows(take(1, PartConfig("flip.vertical", {"probability": 1.0}))), strict=True
    ):
        np.testing.assert_array_equal(mirrored[0], plain[0][::-1])


def test_batches_depend_on_seed_and_position_alone():
    batches = take(5, FLIP, TURN)
    assert_same(take(5, FLIP, TURN, num_workers=1), batches)
    assert_same(take(2, FLIP, TURN, start=3), batches[3:])
    assert not np.array_equal(take(1, FLIP, TURN, seed=4)[0].image, batches[0].image)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            TURN,
            r"config\.data\.augment\[0\]: 'rot90\.rot90' returned an image \(17, 9, 3\) of uint8 for one \(9, 1",
        ),
        (PartConfig("flip.vertical", {"probability": 2}), r"augment\[0\]: 'flip.vertical': probability=2 must be in"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_what_goes_wrong_names_the_part(part, words):
    with pytest.raises(UserError, match=words):
        take(4, part, crop_size=(9, 17))


def test_a_config_keeps_them_and_refuses_what_cannot_be():
    config = Config(data=DataConfig(augment=(FLIP, PartConfig("flip.vertical", {"probability": 0.1}))))
    validate(config)
    assert from_dict(to_dict(config)) == config
    config.data.device_augmentation = True
    with pytest.raises(UserError, match=r"device_augmentation=True: must be False with data\.augment"):
        validate(config)
    for part, words in (
        (
            PartConfig("flip.vertica"),
            r"data\.augment\[0\]: no 'vertica' in .*flip\.py; did you mean 'vertical'",
        ),
        (PartConfig("flip.vertical", {"chance": 1}), r"takes no argument 'chance'; there are probability"),
    ):
        with pytest.raises(UserError, match=words):
            validate(Config(data=DataConfig(augment=(part,))))


def test_they_are_found_like_all_parts():
    assert {"flip", "rot90"} <= set(registry.module_names("data.augment"))
