"""What the contents of a data set's masks stand for: each grey value, palette index or colour a class, or ignored."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Int32, Integer, Shaped, UInt8

from deeplab_jax.types import DatasetInfo, UserError

# What a mask holds at each pixel, as one number: a grey value or palette index, a colour, or a set bit.
Codes = Integer[np.ndarray, "h w *maps"]
COLOR = 1 << 24  # plus 0xRRGGBB
TRUE = 1 << 25  # a set bit in a file of truth values; the others are 0
MISSING = TRUE + 1  # no value: NaN, or declared as missing (GDAL_NODATA)

UNKNOWN_ID = -1
BORDER = (224, 224, 192)  # the colour that PASCAL VOC's tools give to ignored pixels
_MAX_LISTED = 8
_CORRECT_IT = "correct the mask or the classes"


@dataclasses.dataclass(frozen=True)
class Legend:
    """The class id or ignore label that each code stands for; all other codes are errors.

    Attributes:
      meaning: code -> class id or ignore label.
      threshold: a mask's values are shares of the object in [0, 1], or of its largest value, and those from here on are
        the object; None: values are codes.
      by_color: palette images are read by their colours, not by their indices; None: their indices count, and must not
        contradict their colours.
      colors: code of each class's colour -> class id, whether masks may hold colours or not.
      ignore_is_assumed: nobody declared the ignore label.
      page: of a file with several, the one that is the mask (the first is 1); None: such a file is refused.
      hint: the remedy named with a code that is not in the legend.
    """

    meaning: Mapping[int, int]
    ignore_label: int
    threshold: float | None = None
    by_color: bool | None = None
    colors: Mapping[int, int] = dataclasses.field(default_factory=dict)
    ignore_is_assumed: bool = False
    page: int | None = None
    hint: str = _CORRECT_IT

    @property
    def has_colors(self) -> bool:
        return any(COLOR <= code < TRUE for code in self.meaning)

    @property
    def fingerprint(self) -> str:
        """A text that differs whenever labels could."""
        return repr((sorted(self.meaning.items()), self.ignore_label, self.threshold, self.by_color, self.page))

    def labels(self, codes: Codes) -> Int32[np.ndarray, "h w *maps"]:
        """The label of each pixel; `UNKNOWN_ID` where its code is not in the legend."""
        if codes.dtype == np.uint8:
            return self._of_bytes[codes]
        known, labels = self._sorted
        place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        return np.where(known[place] == codes, labels[place], np.int32(UNKNOWN_ID))

    def of(self, code: int) -> int:
        """The label that one code stands for, or `UNKNOWN_ID`."""
        return self.meaning.get(int(code), UNKNOWN_ID)

    def describe_unknown(self, codes: Codes) -> str:
        """Names the codes that are not in the legend, the first of their places, and the remedy."""
        unknown = self.unknown(codes)
        row, column = np.argwhere(codes == next(iter(unknown)))[0, :2].tolist()
        return (
            f"holds {describe_codes(unknown)}, the first at row {row}, column {column}; valid are {self.describe()}; "
            f"{self.hint}"
        )

    def unknown(self, codes: Codes) -> dict[int, int]:
        """Code that is not in the legend -> number of its pixels."""
        every, counts = count_codes(codes)
        return {code: count for code, count in zip(every, counts, strict=True) if code not in self.meaning}

    def describe(self) -> str:
        """'0 to 2 and 255 (ignored)'."""
        classes = [code for code, label in self.meaning.items() if label != self.ignore_label and code < TRUE]
        ignored = [code for code, label in self.meaning.items() if label == self.ignore_label and code < TRUE]
        return _ranges(classes) + (f" and {_ranges(ignored)} (ignored)" if ignored else "")

    @functools.cached_property
    def _of_bytes(self) -> Int32[np.ndarray, "256"]:
        table = np.full(256, UNKNOWN_ID, np.int32)
        for code, label in self.meaning.items():
            if code < 256:
                table[code] = label
        return table

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        codes = np.array(sorted(self.meaning), np.int64)
        return codes, np.array([self.meaning[code] for code in codes.tolist()], np.int32)


def legend_of_ids(info: DatasetInfo, id_map: Mapping[int, int] | None = None) -> Legend:
    """The legend of masks whose values are class ids, or are mapped to them.

    Args:
      id_map: value in a mask -> class id or ignore label; None: values are class ids already.
    """
    num_labels = 2 if info.label_maps else info.num_classes
    known = {label: label for label in range(num_labels)} if id_map is None else dict(id_map)
    return Legend({info.ignore_label: info.ignore_label, **known, MISSING: info.ignore_label}, info.ignore_label)


def require_known(codes: Codes, labels: Shaped[np.ndarray, "h w *maps"], legend: Legend, path: str) -> None:
    """Raises UserError, naming value, place and remedy, if the legend does not know all codes of a mask."""
    if (labels == UNKNOWN_ID).any():
        raise UserError(f"{path}: {legend.describe_unknown(codes)}")


def count_codes(codes: Codes) -> tuple[list[int], list[int]]:
    """(the codes that occur, in order; the number of pixels of each)."""
    if codes.dtype == np.uint8:
        counts = np.bincount(codes.ravel(), minlength=256)
        every = np.flatnonzero(counts)
        return every.tolist(), counts[every].tolist()
    every, counts = np.unique(codes, return_counts=True)
    return every.tolist(), counts.tolist()


def color_code(color: Iterable[int]) -> int:
    """The code of an RGB colour."""
    red, green, blue = color
    return COLOR | red << 16 | green << 8 | blue


def color_codes(pixels: UInt8[np.ndarray, "h w 3"]) -> Int32[np.ndarray, "h w"]:
    """The codes of RGB pixels."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return COLOR | red << 16 | green << 8 | blue


def truth_codes(is_set: Bool[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """The codes of truth values."""
    return np.where(is_set, np.int32(TRUE), np.int32(0))


def name_of(code: int) -> str:
    """'42', '(224, 224, 192)' or 'true'."""
    if code >= TRUE:
        return "true" if code == TRUE else "missing"
    return f"({code >> 16 & 255}, {code >> 8 & 255}, {code & 255})" if code >= COLOR else str(code)


def describe_codes(counts: Mapping[int, int]) -> str:
    """'the values 42 (2 pixels), 43 (1 pixel)'."""
    kind = "colour" if all(COLOR <= code < TRUE for code in counts) else "value"
    parts = [f"{name_of(code)} ({n} pixel{'s' * (n > 1)})" for code, n in list(counts.items())[:_MAX_LISTED]]
    more = f" and {len(counts) - _MAX_LISTED} more" if len(counts) > _MAX_LISTED else ""
    return f"the {kind}{'s' * (len(counts) > 1)} {', '.join(parts)}{more}"


def _ranges(codes: Iterable[int]) -> str:
    """'0 to 2, 5, (1, 2, 3)'."""
    values = np.array(sorted(code for code in codes if code < COLOR), np.int64)
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1) if values.size else []
    words = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join(words + [name_of(code) for code in codes if code >= COLOR])
