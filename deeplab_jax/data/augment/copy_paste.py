"""Copy-paste of rare classes: pastes one object of such a class from another image into a crop.

One pass over the labels finds which images have which class. Which object goes where depends only on the seed and the
sample's number, like everything else about a sample.

Source: Simple copy-paste (2012.07177), sec. 3, with a single object instead of all objects of an image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Int, Num

from deeplab_jax.data.dataset import LabelSource
from deeplab_jax.data.inspection.class_counts import ClassCounts, median_frequency_weights
from deeplab_jax.data.sources.stored_labels import LabelPixels, count_label
from deeplab_jax.data.workers import each
from deeplab_jax.types import DatasetInfo, ExampleSource, ImageLabel, UserError

MIN_OBJECT_PIXELS = 64  # smaller regions are annotation noise rather than objects
RARE_WEIGHT = 2.0  # a class is rare if the median class is at least this many times as frequent


@dataclasses.dataclass(frozen=True)
class Donors:
    """The images of a split that objects can be pasted from."""

    source: ExampleSource
    images: Mapping[int, Sequence[int]]  # class id -> indices of the images with enough of it, at least one


def find_donors(source: ExampleSource, info: DatasetInfo, classes: Sequence[int], *, num_workers: int) -> Donors:
    """Searches all labels of a split, in threads, with a progress bar.

    Args:
      classes: ids of the classes to paste; empty: those whose median-frequency weight is at least `RARE_WEIGHT`.
      num_workers: threads; 0: one for each CPU core.

    Raises:
      UserError: when the data set has no such class, or there is nothing to paste.
    """
    unknown = [class_id for class_id in classes if class_id not in range(info.num_classes)]
    if unknown:
        raise UserError(
            f"config.data.copy_paste_classes={tuple(classes)}: {info.name} has no class {unknown[0]}; "
            f"its ids are 0 to {info.num_classes - 1}"
        )
    pixels, counts = _count_each(source, info, num_workers)
    chosen = classes or np.flatnonzero(np.asarray(median_frequency_weights(counts)) >= RARE_WEIGHT).tolist()
    images = {c: np.flatnonzero(pixels[:, c] >= MIN_OBJECT_PIXELS).tolist() for c in chosen}
    if not any(images.values()):
        raise UserError(
            f"config.data.copy_paste_classes={tuple(classes)}: no image of {info.name} has an object of "
            f"{MIN_OBJECT_PIXELS} pixels of {'them' if classes else 'a rare class'}; name other classes, or set "
            "config.data.copy_paste=0"
        )
    return Donors(source, {class_id: indices for class_id, indices in images.items() if indices})


def _count_each(
    source: ExampleSource, info: DatasetInfo, num_workers: int
) -> tuple[Int[np.ndarray, "n c"], ClassCounts]:
    """Pixels of each class in each image, and their sums."""
    counts = ClassCounts.zeros(info.num_classes)
    pixels = np.zeros((len(source), info.num_classes), np.int64)

    def count(index: int) -> LabelPixels:
        return count_label(_label_of(source, index), info)

    for index, row in enumerate(each(count, range(len(source)), title="rare classes", num_workers=num_workers)):
        counts.add(row)
        pixels[index] = row.of_class
    return pixels, counts


def _label_of(source: ExampleSource, index: int) -> ImageLabel:
    return source.label(index) if isinstance(source, LabelSource) else source[index].label


def paste_object(
    rng: np.random.Generator,
    donors: Donors,
    image: Num[np.ndarray, "h w bands"],
    label: ImageLabel,
    *,
    scale: float,
) -> None:
    """Pastes one object of a rare class at a random place into a crop, in place.

    Draws a class uniformly, then one of its images, then one of the connected regions of that class in it.

    Args:
      image: the crop without its padding; `label` likewise.
      scale: of the object, reduced if it would not fit.
    """
    class_id = list(donors.images)[int(rng.integers(len(donors.images)))]
    candidates = donors.images[class_id]
    _, other_image, other_label = donors.source[candidates[int(rng.integers(len(candidates)))]]
    rows, columns, mask = _draw_region(rng, other_label == class_id)
    height, width = mask.shape
    factor = min(scale, image.shape[0] / height, image.shape[1] / width)
    size = (max(1, int(height * factor)), max(1, int(width * factor)))
    step = -1 if rng.random() < 0.5 else 1  # mirrored or not
    pixels = cv2.resize(np.ascontiguousarray(other_image[rows, columns]), size[::-1], interpolation=cv2.INTER_LINEAR)
    inside = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0
    top, left = (int(rng.integers(room - used + 1)) for room, used in zip(label.shape, size, strict=True))
    place = (slice(top, top + size[0]), slice(left, left + size[1]))
    pixels, inside = pixels.reshape(*size, -1)[:, ::step], inside[:, ::step]
    image[place][inside] = pixels[inside]
    label[place][inside] = class_id


def _draw_region(
    rng: np.random.Generator, members: Bool[np.ndarray, "h w"]
) -> tuple[slice, slice, Bool[np.ndarray, "rh rw"]]:
    """Rows, columns and mask of one connected region with enough pixels, or of the largest if none has enough."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats(members.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]  # the first is the background
    large = np.flatnonzero(areas >= min(MIN_OBJECT_PIXELS, areas.max())) + 1
    region = int(large[int(rng.integers(len(large)))])
    left, top, width, height = (int(value) for value in stats[region, : cv2.CC_STAT_AREA])
    rows, columns = slice(top, top + height), slice(left, left + width)
    return rows, columns, regions[rows, columns] == region
