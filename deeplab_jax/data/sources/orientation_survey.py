"""Decides, once for a data set, whether masks of turned photographs were drawn upright or on the stored pixels.

A mask whose size fits only one of the two tells it; so do the masks of other photographs, since one tool drew them all.
Where no size tells it (upside down, mirrored, or square), the outlines of the masks are laid over the images in both
ways: they lie on edges in one of them.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from deeplab_jax.data.sources.image_sizes import SizeLimit
from deeplab_jax.data.sources.images import decode_image
from deeplab_jax.data.sources.orientation import UPRIGHT, exif_orientation, swaps_axes, turned
from deeplab_jax.data.sources.pictures import open_picture
from deeplab_jax.data.workers import each
from deeplab_jax.types import UserError

SHOWN, STORED = "shown", "stored"
MASK_ORIENTATIONS = ("", SHOWN, STORED)  # '': told from the files

_HEADER_BYTES = 1 << 18  # where a camera writes the orientation
_MAX_OVERLAID = 64  # masks laid over their images
_SIDE = 192  # they are compared at this size, at which outlines need not be exact
_NEAR, _GAP, _RING = 1, 4, 14  # pixels from an outline: its own edges, and from where to where others are counted
# Evidence is a log: how much stronger the edges under an outline are than those around it, compared with the outline of
# the turned mask. On photographs of pets it is 0.4 ± 0.3 for each image; for N images, this over √N is required.
_EVIDENCE_OF_ONE, _MIN_EVIDENCE, _NUM_ERRORS = 0.6, 0.1, 2.0

Codes = Integer[np.ndarray, "h w"]


class Pair(NamedTuple):
    """The files of an image and its mask, as functions, so that only those that are needed are read."""

    read_image: Callable[[int], bytes]  # the first so many bytes; -1: all
    read_codes: Callable[[], Codes]


@dataclasses.dataclass(frozen=True, slots=True)
class OrientationSurvey:
    """What is known about the masks of turned photographs.

    Attributes:
      num_turned: images that their file turns.
      orientation: how their masks were drawn: SHOWN, STORED, or '' if nothing tells it.
      evidence: what tells it, in words.
    """

    num_turned: int
    orientation: str
    evidence: str

    def describe(self) -> str:
        """One line for the user."""
        images = f"{self.num_turned} image{'s are' if self.num_turned > 1 else ' is'} turned by EXIF"
        if not self.orientation:
            return f"{images}, and {self.evidence}; {HOW_TO_TELL}"
        drawn = "upright" if self.orientation == SHOWN else "on the stored pixels, and are turned with the images"
        return f"{images}; the masks were drawn {drawn} ({self.evidence})"


HOW_TO_TELL = (
    'save the images upright, or write "mask_orientation": "shown" (drawn on the upright image) or "stored" (on the '
    "pixels as stored) into classes.json (data set folder, which reads JPEGImages/ and SegmentationClass/ too)"
)


def survey_orientation(pairs: Sequence[Pair]) -> OrientationSurvey:
    """Looks at all images' headers, and at the masks of those that are turned."""
    orientations = list(each(_orientation, pairs, ahead=256))
    found = [(pair, turn) for pair, turn in zip(pairs, orientations, strict=True) if turn != UPRIGHT]
    told = [_told_by_size(pair, turn) for pair, turn in found if swaps_axes(turn)]
    shown, stored = told.count(SHOWN), told.count(STORED)
    count = shown + stored
    if count in (shown, stored) and count:
        evidence = f"as the size of {count} mask{'s tell' if count > 1 else ' tells'}"
        return OrientationSurvey(len(found), SHOWN if shown else STORED, evidence)
    chosen = found[:: math.ceil(len(found) / _MAX_OVERLAID)] if found else []
    made = each(lambda item: _overlaid(*item), chosen, ahead=8)
    return _weigh([value for value in made if value is not None], len(found))


def _weigh(evidence: Sequence[float], num_turned: int) -> OrientationSurvey:
    """The verdict of masks laid over their images; positive values speak for upright ones."""
    if not evidence:
        return OrientationSurvey(num_turned, "", "no mask has an outline to compare with its image")
    mean, count = statistics.fmean(evidence), len(evidence)
    deviation = statistics.stdev(evidence) if count > 2 else 0.0
    enough = max(_MIN_EVIDENCE, max(_EVIDENCE_OF_ONE, _NUM_ERRORS * deviation) / math.sqrt(count))
    if abs(mean) < enough:
        return OrientationSurvey(num_turned, "", "their masks' outlines fit the images as well either way")
    images = f"{count} image{'s' * (count > 1)}"
    fit = f"their outlines lie on edges {math.exp(abs(mean)):.1f} times as strong as the other way, in {images}"
    return OrientationSurvey(num_turned, SHOWN if mean > 0 else STORED, fit)


def _orientation(pair: Pair) -> int:
    for count in (_HEADER_BYTES, -1):
        try:
            data = pair.read_image(count)
            if b"Exif" not in data and b"eXIf" not in data and b"ftyp" not in data[:12]:
                return UPRIGHT
            return exif_orientation(open_picture(data, "image"))
        except UserError:  # cut off, or damaged: which is told when it is read
            continue
    return UPRIGHT


def _told_by_size(pair: Pair, orientation: int) -> str | None:
    try:
        picture, mask_size = open_picture(pair.read_image(-1), "image"), pair.read_codes().shape
    except UserError:  # told when it is read
        return None
    stored = (picture.height, picture.width)
    if not swaps_axes(orientation) or stored[0] == stored[1] or mask_size not in (stored, stored[::-1]):
        return None
    return STORED if mask_size == stored else SHOWN


def _overlaid(pair: Pair, orientation: int) -> float | None:
    """How much stronger the image's edges are under the outline of the mask as it is than of the turned mask, as a log.

    None: the mask has no outline, is the same when turned, or a file cannot be read.
    """
    try:
        codes, image = pair.read_codes(), decode_image(pair.read_image(-1), "image", limit=SizeLimit())
    except UserError:
        return None
    other = turned(codes, orientation)
    if image.shape[:2] != codes.shape or other.shape != codes.shape or np.array_equal(codes, other):
        return None
    edges = _edges(image)
    here, there = (_strength(edges, _outline(each_way, edges.shape)) for each_way in (codes, other))
    return None if here is None or there is None else math.log(here / there)


def _edges(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h2 w2"]:
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = (max(round(image.shape[1] * scale), 3), max(round(image.shape[0] * scale), 3))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    smooth = cv2.GaussianBlur(small, (0, 0), 1.0)
    gradient = [cv2.Sobel(smooth, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1))]
    return cast(np.ndarray, np.sqrt(np.square(gradient).sum(axis=(0, -1))))


def _outline(codes: Codes, size: Iterable[int]) -> Bool[np.ndarray, "h2 w2"]:
    """True on both sides of every border between two values."""
    height, width = size
    rows = np.arange(height) * codes.shape[0] // height
    columns = np.arange(width) * codes.shape[1] // width
    small = codes[rows[:, None], columns]
    outline = np.zeros(small.shape, bool)
    for axis in (0, 1):
        first, second = [slice(None)] * 2, [slice(None)] * 2
        first[axis], second[axis] = slice(1, None), slice(None, -1)
        differs = small[tuple(first)] != small[tuple(second)]
        outline[tuple(first)] |= differs
        outline[tuple(second)] |= differs
    return outline


def _strength(edges: Float[np.ndarray, "h w"], outline: Bool[np.ndarray, "h w"]) -> float | None:
    """The mean edge under an outline, in units of that around it; None: there is nothing around it."""
    under, gap, ring = (_widened(outline, distance) for distance in (_NEAR, _GAP, _RING))
    around = ring & ~gap
    # One level of brightness more: without any edge, both are the same.
    return float((edges[under].mean() + 1) / (edges[around].mean() + 1)) if around.any() and under.any() else None


def _widened(outline: Bool[np.ndarray, "h w"], distance: int) -> Bool[np.ndarray, "h w"]:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * distance + 1, 2 * distance + 1))
    return cv2.dilate(outline.astype(np.uint8), disc) > 0
