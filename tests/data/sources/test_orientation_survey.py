"""Masks of turned photographs: drawn upright or on the stored pixels, told by sizes, else by outlines."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.data.sources.orientation import turned
from deeplab_jax.data.sources.orientation_survey import SHOWN, STORED, Pair, survey_orientation
from deeplab_jax.types import UserError

BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the orientation that undoes another


def disc(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc off the centre of textured ground, upright, and its mask."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - 0.3 * height) ** 2 + (columns - rng.uniform(0.25, 0.4) * width) ** 2 < (0.2 * height) ** 2
    image = rng.integers(20, 90, (height, width, 3))
    image[inside] += (120, 40, 10)
    return image.astype(np.uint8), inside.astype(np.uint8)


def jpeg(upright: np.ndarray, orientation: int) -> bytes:
    """Stored so that the orientation shows it upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(turned(upright, BACK[orientation])).save(file, "JPEG", quality=92, exif=exif)
    return file.getvalue()


def pair(data: bytes, codes: np.ndarray) -> Pair:
    return Pair(lambda count: data if count < 0 else data[:count], lambda: codes)


def pairs_of(orientation: int, drawn: str, *, count: int, size: tuple[int, int] = (60, 80)) -> list[Pair]:
    made = []
    for seed in range(count):
        image, mask = disc(seed, *size)
        made.append(pair(jpeg(image, orientation), mask if drawn == SHOWN else turned(mask, BACK[orientation])))
    return made


@pytest.mark.parametrize("drawn", [SHOWN, STORED])
@pytest.mark.parametrize(
    ("orientation", "size"), [(2, (60, 80)), (3, (60, 80)), (4, (60, 80)), (6, (64, 64)), (8, (64, 64))]
)
def test_outlines_tell_where_no_size_does(orientation, size, drawn):
    found = survey_orientation(
        [pair(jpeg(disc(9, *size)[0], 1), disc(9, *size)[1]), *pairs_of(orientation, drawn, count=4, size=size)]
    )
    assert (found.num_turned, found.orientation) == (4, drawn)
    assert found.describe().startswith("4 images are turned by EXIF; the masks were drawn ")
    assert ("on the stored pixels, and are turned with the images" in found.describe()) == (drawn == STORED)


@pytest.mark.parametrize("drawn", [SHOWN, STORED])
def test_a_mask_whose_size_fits_one_way_tells_it_for_all(drawn):
    other = STORED if drawn == SHOWN else SHOWN
    found = survey_orientation([*pairs_of(6, drawn, count=1), *pairs_of(3, other, count=3)])
    assert (found.num_turned, found.orientation) == (4, drawn)
    assert "the size of 1 mask tells" in found.describe()


def test_where_sizes_contradict_each_other_the_outlines_tell():
    found = survey_orientation(
        [*pairs_of(6, SHOWN, count=1), *pairs_of(6, STORED, count=1), *pairs_of(3, STORED, count=4)]
    )
    assert found.orientation == STORED


def test_what_nothing_tells_is_left_open():
    flat = np.full((60, 80, 3), 90, np.uint8)
    _, mask = disc(0, 60, 80)
    for codes in (mask, np.zeros_like(mask)):
        found = survey_orientation([pair(jpeg(flat, 3), codes)] * 3)
        assert (found.num_turned, found.orientation) == (3, "")
        assert 'write "mask_orientation": "shown" (drawn on the upright image) or "stored"' in found.describe()


def test_unreadable_files_are_left_to_whoever_reads_them_all():
    def fail() -> np.ndarray:
        raise UserError("no mask")

    image, _ = disc(0, 60, 80)
    broken = [pair(b"", np.zeros((1, 1), np.uint8)), Pair(lambda _: jpeg(image, 3), fail)]
    found = survey_orientation([*broken, *pairs_of(3, STORED, count=4)])
    assert (found.num_turned, found.orientation) == (5, STORED)


def test_real_photographs_turned_by_their_files(shared):
    """Pets: masks with a border of ignored pixels, on cluttered ground."""
    root = shared / "data" / "pets"
    names = (root / "ImageSets" / "Segmentation" / "val_mini.txt").read_text().split()[:12]
    for drawn in (SHOWN, STORED):
        made = []
        for name in names:
            image = np.asarray(Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB"))
            mask = np.array(Image.open(root / "SegmentationClass" / f"{name}.png"))
            made.append(pair(jpeg(image, 3), mask if drawn == SHOWN else turned(mask, 3)))
        assert survey_orientation(made).orientation == drawn
