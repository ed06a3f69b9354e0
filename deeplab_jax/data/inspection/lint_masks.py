"""Checks a mask: what is wrong with it, and the intended class ids if they can be recovered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from deeplab_jax.data.inspection.lint_findings import Finding
from deeplab_jax.data.sources.file_formats import GIF, PNG, find_format
from deeplab_jax.data.sources.mask_files import LossyMaskError, decode_mask, read_stored
from deeplab_jax.data.sources.pictures import open_picture
from deeplab_jax.data.sources.samples import UNKNOWN_ID, IdTable, ranges
from deeplab_jax.types import DatasetInfo, UserError

# Colours of ignored pixels, unless a class has them: PASCAL VOC's border, CamVid's void.
_VOID_COLORS = ((224, 224, 192), (0, 0, 0))
_MAX_LISTED = 8  # values in a message; all are in the finding
_NUM_KEPT = 64
_HOW_TO_CONVERT = "--mode=lint --output=NEW_FOLDER writes converted copies"


class CheckedMask(NamedTuple):
    """The content of a mask file."""

    values: UInt8[np.ndarray, "h w"] | None  # None: class ids cannot be read from the file as it is
    size: tuple[int, int] | None  # (height, width), if it can be decoded at all
    findings: list[Finding]
    converted: UInt8[np.ndarray, "h w"] | None = None  # the intended values


def check_mask(data: bytes, path: str, info: DatasetInfo, table: IdTable) -> CheckedMask:
    """Decodes a mask file and reports what is wrong with it.

    Args:
      info: gives the data set's classes and their colours.
      table: the meaning of the values in its masks.
    """
    try:
        values = decode_mask(data, path, missing=info.ignore_label)
    except LossyMaskError as error:
        return CheckedMask(None, None, [Finding("lossy_mask", path, str(error))])
    except UserError as error:
        return _check_undecodable(data, path, info, table, str(error))
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > 255:
            return CheckedMask(None, values.shape, [invalid_value_finding(values, path, info, table)])
        values = values.astype(np.uint8)
    invalid = invalid_values(values, table)
    if not invalid:
        return CheckedMask(values, values.shape, _check_palette(data, path, info, table, values))
    meant = _by_brightness(values, info, table)
    if meant is not None:
        listed = ", ".join(str(value) for value in list(invalid)[:_MAX_LISTED])
        message = (
            f"{path}: holds the values {listed}: the brightness of classes' colours, so a palette image was saved as "
            f"grey; {_HOW_TO_CONVERT}"
        )
        finding = Finding("palette_as_grey", path, message, _as_text(invalid), convertible=True)
        return CheckedMask(values, values.shape, [finding], meant)
    return CheckedMask(values, values.shape, [invalid_value_finding(values, path, info, table)])


def invalid_values(values: UInt8[np.ndarray, "h w"], table: IdTable) -> dict[int, int]:
    """Invalid value (neither a class nor ignored) -> number of its pixels."""
    counts = np.bincount(values.ravel(), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts) if table[value] == UNKNOWN_ID}


def invalid_value_finding(values: Integer[np.ndarray, "h w"], path: str, info: DatasetInfo, table: IdTable) -> Finding:
    """The finding for a mask with at least one invalid value; values may exceed 255."""
    every, counts = np.unique(values, return_counts=True)
    is_known = [0 <= value < 256 and table[value] != UNKNOWN_ID for value in every]
    invalid = {int(v): int(n) for v, n, known in zip(every, counts, is_known, strict=True) if not known}
    row, column = np.argwhere(values == next(iter(invalid)))[0].tolist()
    valid = ranges((table != UNKNOWN_ID) & (table != info.ignore_label))
    message = (
        f"{path}: holds {_list_values(invalid)}, the first at row {row}, column {column}; valid are {valid} and "
        f"{ranges(table == info.ignore_label)} (ignored); correct the mask or the classes"
    )
    return Finding("invalid_value", path, message, _as_text(invalid))


def _check_undecodable(data: bytes, path: str, info: DatasetInfo, table: IdTable, reason: str) -> CheckedMask:
    """Looks for colours in a mask that class ids cannot be read from."""
    try:
        stored = read_stored(data, path)
    except UserError:  # the finding already says so
        return CheckedMask(None, None, [Finding("unreadable", path, reason)])
    size = (stored.values.shape[0], stored.values.shape[1])
    if stored.bands not in ("RGB", "RGBA", "LA") or stored.values.dtype != np.uint8:
        return CheckedMask(None, size, [Finding("unreadable", path, reason)])
    pixels = stored.values[..., :3] if stored.bands != "LA" else np.repeat(stored.values[..., :1], 3, axis=2)
    return _check_colors(pixels, path, info, table)


def _check_colors(pixels: UInt8[np.ndarray, "h w 3"], path: str, info: DatasetInfo, table: IdTable) -> CheckedMask:
    size, meaning = pixels.shape[:2], _class_of_color(info)
    colors, places, counts = np.unique(_codes(pixels), return_inverse=True, return_counts=True)
    voids = {_code(color) for color in _VOID_COLORS} - {_code(color) for color in info.palette}
    unknown = {int(c): int(n) for c, n in zip(colors, counts, strict=True) if int(c) not in meaning.keys() | voids}
    levels = colors & 0xFF
    if not unknown and any(int(color) in meaning for color in colors):
        content = "colours of classes: a palette image saved as RGB"
        kind, meant = "palette_as_rgb", [meaning.get(int(color), info.ignore_label) for color in colors]
        values = _values_of(table)[meant]
    elif np.all(colors == levels * 0x010101) and np.all(table[levels] != UNKNOWN_ID):
        content = "the same class id in three channels"
        kind, values = "ids_as_rgb", levels
    else:
        return CheckedMask(None, size, [_foreign_colors(path, unknown, int(counts.sum()))])
    finding = Finding(kind, path, f"{path}: holds {content}; {_HOW_TO_CONVERT}", convertible=True)
    return CheckedMask(None, size, [finding], values.astype(np.uint8)[places].reshape(size))


def _foreign_colors(path: str, unknown: Mapping[int, int], num_pixels: int) -> Finding:
    commonest = dict(sorted(unknown.items(), key=lambda item: -item[1]))
    listed = ", ".join(f"({c >> 16}, {c >> 8 & 255}, {c & 255})" for c in list(commonest)[:_MAX_LISTED])
    share = 1 - sum(unknown.values()) / num_pixels
    message = (
        f"{path}: holds {len(unknown)} colours that are no class's, as {listed}, where class ids are expected; "
        f"{share:.1%} of its pixels have colours of classes; save class ids, one channel, never interpolated"
    )
    return Finding("color_mask", path, message, {f"#{c:06x}": n for c, n in list(commonest.items())[:_NUM_KEPT]})


def _check_palette(
    data: bytes, path: str, info: DatasetInfo, table: IdTable, values: UInt8[np.ndarray, "h w"]
) -> list[Finding]:
    """Finds palettes renumbered by an image editor, in which indices and colours stand for different classes."""
    picture = open_picture(data, path) if find_format(data) in (PNG, GIF) else None
    palette = picture.getpalette() if picture is not None and picture.mode == "P" else None
    if palette is None:
        return []
    meaning = _class_of_color(info)
    used = [int(value) for value in np.unique(values) if table[value] != info.ignore_label]
    colors = {value: palette[3 * value : 3 * value + 3] for value in used}
    by_color = {value: meaning.get(_code(color)) if color else None for value, color in colors.items()}
    differing = {value: k for value, k in by_color.items() if k != table[value]}
    if None in by_color.values() or not differing:
        return []
    value, class_id = next(iter(differing.items()))
    message = (
        f"{path}: its index {value} is class '{info.class_names[table[value]]}', but has the colour of "
        f"'{info.class_names[class_id or 0]}'; if an editor renumbered the colours, export the mask again"
    )
    counts = {value: int(np.sum(values == value)) for value in differing}
    return [Finding("palette_disagrees", path, message, _as_text(counts))]


def _by_brightness(
    values: UInt8[np.ndarray, "h w"], info: DatasetInfo, table: IdTable
) -> UInt8[np.ndarray, "h w"] | None:
    """The intended values, if all values are the brightness of a class's colour."""
    meanings = {**_class_of_color(info), _code(_VOID_COLORS[0]): info.ignore_label}
    brightness = [_brightness(code) for code in meanings]
    meant = np.full(256, UNKNOWN_ID, np.int16)
    for level, class_id in zip(brightness, meanings.values(), strict=True):
        if brightness.count(level) == 1:
            meant[level] = class_id
    if np.any(meant[np.unique(values)] == UNKNOWN_ID):
        return None
    return _values_of(table)[meant[values]]


def _class_of_color(info: DatasetInfo) -> dict[int, int]:
    """Colour -> class id, without colours shared by several classes."""
    codes = [_code(color) for color in info.palette]
    return {code: class_id for class_id, code in enumerate(codes) if codes.count(code) == 1}


def _values_of(table: IdTable) -> UInt8[np.ndarray, "256"]:
    """Class id, or ignore label -> the first value in the data set's masks that means it."""
    values = np.zeros(256, np.uint8)
    for value in range(255, -1, -1):
        if table[value] != UNKNOWN_ID:
            values[table[value]] = value
    return values


def _code(color: tuple[int, ...] | list[int]) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _codes(pixels: UInt8[np.ndarray, "h w 3"]) -> Integer[np.ndarray, "h w"]:
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _brightness(code: int) -> int:
    """Grey level as computed by Pillow and most editors: ITU-R 601-2 in fixed point."""
    return (19595 * (code >> 16) + 38470 * (code >> 8 & 255) + 7471 * (code & 255) + 0x8000) >> 16


def _list_values(counts: Mapping[int, int]) -> str:
    """'the values 42 (2 pixels) and 43 (1 pixel)'."""
    parts = [f"{value} ({count} pixel{'s' * (count > 1)})" for value, count in list(counts.items())[:_MAX_LISTED]]
    more = f" and {len(counts) - _MAX_LISTED} more" if len(counts) > _MAX_LISTED else ""
    return f"the value{'s' * (len(counts) > 1)} {', '.join(parts)}{more}"


def _as_text(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(value): count for value, count in list(counts.items())[:_NUM_KEPT]}
