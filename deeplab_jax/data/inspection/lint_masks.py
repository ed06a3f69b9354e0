"""Checks a mask: what is wrong with it, and the intended class ids if they can be recovered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from deeplab_jax.data.inspection.lint_findings import Finding
from deeplab_jax.data.sources.legend import (
    BORDER,
    COLOR,
    UNKNOWN_ID,
    Codes,
    Legend,
    color_code,
    color_codes,
    name_of,
)
from deeplab_jax.data.sources.mask_codes import MaskFile, PaletteError, SoftMaskError, mask_codes, read_mask_file
from deeplab_jax.data.sources.mask_files import LossyMaskError
from deeplab_jax.types import DatasetInfo, UserError

# Colours of ignored pixels, unless a class has them: PASCAL VOC's border. Black may as well be the background.
_VOID_COLORS = (BORDER,)
_KINDS = {PaletteError: "palette_disagrees", SoftMaskError: "soft_mask"}
_MAX_LISTED = 8  # values in a message; all are in the finding
_NUM_KEPT = 64
_HOW_TO_CONVERT = "--mode=lint --output=NEW_FOLDER writes a converted copy"


class CheckedMask(NamedTuple):
    """The content of a mask file."""

    codes: Codes | None  # None: they cannot be read from the file as it is
    size: tuple[int, int] | None  # (height, width), if it can be decoded at all
    findings: list[Finding]
    converted: Integer[np.ndarray, "h w"] | None = None  # the intended codes


def check_mask(data: bytes, path: str, info: DatasetInfo, legend: Legend) -> CheckedMask:
    """Decodes a mask file and reports what is wrong with it.

    Args:
      info: gives the data set's classes and their colours.
      legend: the meaning of what its masks hold.
    """
    try:
        file = read_mask_file(data, path, page=legend.page)
    except UserError as error:
        kind = "lossy_mask" if isinstance(error, LossyMaskError) else "unreadable"
        return CheckedMask(None, None, [Finding(kind, path, str(error))])
    try:
        codes = mask_codes(file, legend, path)
    except UserError as error:
        kind = next((name for cause, name in _KINDS.items() if isinstance(error, cause)), "unreadable")
        return CheckedMask(None, file.size, [Finding(kind, path, str(error))])
    unknown = legend.unknown(codes)
    if not unknown:
        return CheckedMask(codes, codes.shape, _check_palette(file, path, info, legend))
    if file.kind == "colors" and any(code >= COLOR for code in unknown):
        return _check_colors(file.pixels, path, info, legend)
    meant = _by_brightness(codes, info, legend) if codes.dtype == np.uint8 else None
    if meant is not None:
        listed = ", ".join(str(value) for value in list(unknown)[:_MAX_LISTED])
        message = (
            f"{path}: holds the values {listed}: the brightness of classes' colours, so a palette image was saved as "
            f"grey; {_HOW_TO_CONVERT}"
        )
        finding = Finding("palette_as_grey", path, message, _as_text(unknown), convertible=True)
        return CheckedMask(codes, codes.shape, [finding], meant)
    return CheckedMask(codes, codes.shape, [invalid_value_finding(codes, path, legend)])


def invalid_value_finding(codes: Codes, path: str, legend: Legend) -> Finding:
    """The finding for a mask with at least one code that is not in the legend."""
    message = f"{path}: {legend.describe_unknown(codes)}"
    return Finding("invalid_value", path, message, _as_text(legend.unknown(codes)))


def _check_colors(pixels: UInt8[np.ndarray, "h w 3"], path: str, info: DatasetInfo, legend: Legend) -> CheckedMask:
    size, meaning = pixels.shape[:2], _class_of_color(info)
    colors, places, counts = np.unique(color_codes(pixels), return_inverse=True, return_counts=True)
    voids = {color_code(color) for color in _VOID_COLORS} - {color_code(color) for color in info.palette}
    unknown = {int(c): int(n) for c, n in zip(colors, counts, strict=True) if int(c) not in meaning.keys() | voids}
    levels = colors & 0xFF
    if not unknown and any(int(color) in meaning for color in colors):
        content = "colours of classes: a palette image saved as RGB"
        kind, meant = "palette_as_rgb", [meaning.get(int(color), info.ignore_label) for color in colors]
        values = _values_of(legend)[meant]
    elif np.all(colors == COLOR + levels * 0x010101) and all(
        legend.of(level) != UNKNOWN_ID for level in levels.tolist()
    ):
        content = "the same class id in three channels"
        kind, values = "ids_as_rgb", levels.astype(np.uint8)
    else:
        return CheckedMask(None, size, [_foreign_colors(path, unknown, int(counts.sum()), legend)])
    finding = Finding(kind, path, f"{path}: holds {content}; {_HOW_TO_CONVERT}", convertible=True)
    return CheckedMask(None, size, [finding], values[places].reshape(size))


def _foreign_colors(path: str, unknown: Mapping[int, int], num_pixels: int, legend: Legend) -> Finding:
    commonest = dict(sorted(unknown.items(), key=lambda item: -item[1]))
    listed = ", ".join(name_of(color) for color in list(commonest)[:_MAX_LISTED])
    share = 1 - sum(unknown.values()) / num_pixels
    message = (
        f"{path}: holds {len(unknown)} colours that are no class's, as {listed}; {share:.1%} of its pixels have "
        f"colours of classes; {legend.hint}; masks are never to be interpolated"
    )
    kept = list(commonest.items())[:_NUM_KEPT]
    return Finding("color_mask", path, message, {f"#{code - COLOR:06x}": count for code, count in kept})


def _check_palette(file: MaskFile, path: str, info: DatasetInfo, legend: Legend) -> list[Finding]:
    """Finds palettes renumbered by an image editor, in which indices and colours stand for different classes."""
    meaning = _class_of_color(info)
    used = {index: color for index, color in file.palette.items() if legend.of(index) != info.ignore_label}
    if legend.by_color is not None or not used or not all(color in meaning for color in used.values()):
        return []
    differing = {index: meaning[color] for index, color in used.items() if meaning[color] != legend.of(index)}
    if not differing:
        return []
    index, class_id = next(iter(differing.items()))
    message = (
        f"{path}: its index {index} is class '{info.class_names[legend.of(index)]}', but has the colour of "
        f"'{info.class_names[class_id]}'; if an editor renumbered the colours, export the mask again"
    )
    counts = {index: int(np.sum(file.pixels == index)) for index in differing}
    return [Finding("palette_disagrees", path, message, _as_text(counts))]


def _by_brightness(
    values: UInt8[np.ndarray, "h w"], info: DatasetInfo, legend: Legend
) -> Integer[np.ndarray, "h w"] | None:
    """The intended values, if all values are the brightness of a class's colour."""
    meanings = {**_class_of_color(info), color_code(BORDER): info.ignore_label}
    brightness = [_brightness(code) for code in meanings]
    meant = np.full(256, UNKNOWN_ID, np.int32)
    for level, class_id in zip(brightness, meanings.values(), strict=True):
        if brightness.count(level) == 1:
            meant[level] = class_id
    if np.any(meant[np.unique(values)] == UNKNOWN_ID):
        return None
    return _values_of(legend)[meant[values]]


def _class_of_color(info: DatasetInfo) -> dict[int, int]:
    """Code of a colour -> class id, without colours shared by several classes."""
    codes = [color_code(color) for color in info.palette]
    return {code: class_id for class_id, code in enumerate(codes) if codes.count(code) == 1}


def _values_of(legend: Legend) -> Integer[np.ndarray, "labels"]:
    """Class id, or ignore label -> the first value in the data set's masks that means it."""
    known = {label: code for code, label in sorted(legend.meaning.items(), reverse=True) if code < COLOR}
    values = np.zeros(max(known, default=0) + 1, np.uint8 if max(known.values(), default=0) < 256 else np.uint16)
    values[list(known)] = list(known.values())
    return values


def _brightness(code: int) -> int:
    """Grey level as computed by Pillow and most editors: ITU-R 601-2 in fixed point."""
    return (19595 * (code >> 16 & 255) + 38470 * (code >> 8 & 255) + 7471 * (code & 255) + 0x8000) >> 16


def _as_text(counts: Mapping[int, int]) -> dict[str, int]:
    return {name_of(code): count for code, count in list(counts.items())[:_NUM_KEPT]}
