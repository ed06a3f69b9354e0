"""Copy-paste: rare objects, whole and inside the crop, label and pixels together, decided by seed and position."""

from __future__ import annotations

import numpy as np
import pytest
from made_sources import INFO, MadeSource

from deeplab_jax.config import DataConfig
from deeplab_jax.data.augment.copy_paste import MIN_OBJECT_PIXELS, Donors, find_donors, paste_object
from deeplab_jax.data.loading.loader import make_loader
from deeplab_jax.types import Example, UserError

RED, SIZE = (250, 10, 10), (40, 60)


class Scenes:
    """Halves of classes 0 and 1; in scenes 3 and 7 a red disc of class 2, in scene 5 a speck of it."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Example:
        rows, columns = np.indices(SIZE)
        label = (columns >= 30).astype(np.uint8)
        distance = np.hypot(rows - 20, columns - 15)
        label[distance <= {3: 8, 7: 12, 5: 2}.get(index, -1)] = 2
        image = np.repeat((label * 40)[..., None], 3, axis=2)
        image[label == 2] = RED
        return Example(f"scene{index}", image, label)


def empty_crop(size=(33, 41)):
    return np.zeros((*size, 3), np.uint8), np.full(size, 255, np.uint8)


def test_donors_of_the_rare_classes_are_found():
    assert find_donors(Scenes(), INFO, (), num_workers=2).images == {2: [3, 7]}


def test_donors_of_named_classes_are_found():
    donors = find_donors(Scenes(), INFO, (1, 2), num_workers=2)
    assert donors.images == {1: list(range(8)), 2: [3, 7]}


def test_what_cannot_be_pasted_is_refused():
    with pytest.raises(UserError, match=r"copy_paste_classes=\(3,\): made has no class 3; its ids are 0 to 2"):
        find_donors(Scenes(), INFO, (3,), num_workers=1)
    with pytest.raises(UserError, match=r"no image of made has an object of 64 pixels of a rare class; name"):
        find_donors(MadeSource([(9, 17)] * 6), INFO, (), num_workers=1)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 9.0])
def test_an_object_is_pasted_whole_with_its_label(scale):
    donors = Donors(Scenes(), {2: [3, 7]})
    for seed in range(20):
        image, label = empty_crop()
        paste_object(np.random.default_rng(seed), donors, image, label, scale=scale)
        pasted = label == 2
        assert set(np.unique(label)) == {2, 255}
        assert (image[~pasted] == 0).all()
        assert (image[pasted][:, 0] > 100).all()  # red; at its border mixed with what was around it
        rows, columns = np.nonzero(pasted)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert pasted.sum() == pytest.approx(np.pi / 4 * height * width, rel=0.2)  # a disc
        assert height <= min(33, 25 * scale + 1)


def test_of_several_objects_one_is_pasted():
    class Two(Scenes):
        def __getitem__(self, index: int) -> Example:
            label = np.zeros(SIZE, np.uint8)
            label[2:12, 2:12] = label[20:36, 40:56] = 2
            return Example("two", np.zeros((*SIZE, 3), np.uint8), label)

    sizes = set()
    for seed in range(20):
        image, label = empty_crop()
        paste_object(np.random.default_rng(seed), Donors(Two(), {2: [0]}), image, label, scale=1.0)
        sizes.add(int((label == 2).sum()))
    assert sizes == {100, 256}
    assert min(sizes) >= MIN_OBJECT_PIXELS


def batches(copy_paste, **changes):
    config = DataConfig(batch_size=8, crop_size=(33, 33), num_workers=2, copy_paste=copy_paste, **changes)
    with make_loader(config, Scenes(), INFO, seed=3, pad_pixel=(9, 8, 7)) as loader:
        return [next(loader) for _ in range(6)]


def rows_with_class_two(made):
    return sum(int((batch.label == 2).any(axis=(1, 2)).sum()) for batch in made)


def test_pasting_disturbs_no_other_draw():
    """Rows without a pasted object are what they are without the option."""
    plain, pasted = batches(0.0, photometric=True), batches(0.5, photometric=True)
    same = differ = 0
    for one, other in zip(plain, pasted, strict=True):
        for row in range(8):
            changed = one.label[row] != other.label[row]
            assert (other.label[row][changed] == 2).all()
            untouched = other.label[row] != 2
            np.testing.assert_array_equal(one.image[row][untouched], other.image[row][untouched])
            same, differ = same + (not changed.any()), differ + bool(changed.any())
    assert same >= 12
    assert differ >= 12
    assert rows_with_class_two(pasted) > 2 * rows_with_class_two(plain)


def test_padding_stays_padding():
    for batch in batches(1.0, min_scale=0.5, max_scale=0.5, copy_paste_classes=(2,)):
        assert (batch.label[:, 20:] == 255).all()
        assert (batch.image[:, 20:] == (9, 8, 7)).all()
