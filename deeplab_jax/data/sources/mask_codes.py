"""Reads the codes of a mask file, in whatever form it stores them: grey values, a palette, colours, bits, alpha."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num, Shaped, UInt8

from deeplab_jax.data.sources.legend import MISSING, Codes, Legend, color_code, color_codes, name_of, truth_codes
from deeplab_jax.data.sources.mask_files import ColorMaskError, read_grey_png, read_stored, whole_numbers
from deeplab_jax.types import UserError


class PaletteError(UserError):
    """A palette image whose indices and colours stand for different classes."""


class SoftMaskError(UserError):
    """A mask of fractions, which are not class ids."""


class MaskFile(NamedTuple):
    """What a mask file stores, told apart by form.

    Attributes:
      kind: 'values' (grey values), 'indices' (of a palette), 'bits', 'alpha' (values, all in the alpha channel),
        'colors', 'shares' (fractions), or 'channels' (more than a colour has).
      pixels: [h, w], or with channels [h, w, c].
      missing: where there is no value.
      palette: index that occurs -> code of its colour.
    """

    kind: str
    pixels: Shaped[np.ndarray, "h w *channels"]
    missing: Bool[np.ndarray, "h w"] | None = None
    palette: Mapping[int, int] = types.MappingProxyType({})

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]


def read_mask_file(data: bytes, name: str, *, page: int | None = None) -> MaskFile:
    """Decodes a mask file without interpreting it.

    Args:
      page: see `read_stored`.

    Raises:
      UserError: when it is not an image, damaged, lossy, or its alpha channel contradicts its colours.
    """
    values = read_grey_png(data, name)
    if values is not None:
        return MaskFile("values", values)
    stored = read_stored(data, name, page=page)
    pixels, missing, num_bands = stored.values, stored.missing, stored.values.shape[2]
    if num_bands == 1:
        pixels = pixels[..., 0]
        if pixels.dtype == bool:
            return MaskFile("bits", pixels, missing)
        if stored.palette is not None:
            used = np.unique(pixels).tolist()
            colors = {
                index: color_code(stored.palette[index].tolist()) for index in used if index < len(stored.palette)
            }
            return MaskFile("indices", pixels, missing, colors)
        if pixels.dtype.kind == "f" and not _is_whole(pixels, missing):
            return MaskFile("shares", pixels, missing)
        whole = pixels if missing is None else np.where(missing, 0, pixels)
        return MaskFile("values", whole_numbers(whole, name), missing)
    if pixels.dtype != np.uint8 or num_bands > 4:
        return MaskFile("channels", pixels, missing)
    if num_bands == 3:
        return MaskFile("colors", pixels, missing)
    return _without_alpha(pixels, missing, name)


def mask_codes(file: MaskFile, legend: Legend, name: str) -> Codes:
    """The codes that a legend is about.

    Raises:
      UserError: when the file's form does not tell them: fractions without a threshold, more channels than a colour
        has, or a palette whose indices and colours stand for different classes.
    """
    codes = _codes(file, legend, name)
    return codes if file.missing is None else np.where(file.missing, np.int32(MISSING), codes)


def channel_codes(data: bytes, legend: Legend, name: str) -> Codes:
    """The codes of each channel of a file, [h, w, channels].

    Raises:
      UserError: when it cannot be decoded, is lossy, or holds fractions without a threshold.
    """
    stored = read_stored(data, name)
    planes = []
    for values in np.moveaxis(stored.values, -1, 0):
        kind = "bits" if values.dtype == bool else "values"
        if values.dtype.kind == "f" and not _is_whole(values, stored.missing):
            kind = "shares"
        whole = values if stored.missing is None else np.where(stored.missing, 0, values)
        pixels = whole_numbers(whole, name) if kind == "values" else values
        planes.append(mask_codes(MaskFile(kind, pixels, stored.missing), legend, name))
    return np.stack(planes, axis=-1)


def _codes(file: MaskFile, legend: Legend, name: str) -> Codes:
    if legend.threshold is not None and file.kind in ("values", "alpha", "shares"):
        return truth_codes(_as_shares(file.pixels) >= legend.threshold)
    if file.kind == "bits":
        return truth_codes(file.pixels)
    if file.kind == "shares":
        raise _soft(file, name)
    if file.kind == "channels":
        raise ColorMaskError(
            f"{name}: holds {file.pixels.shape[2]} channels of {file.pixels.dtype}, where one value per pixel is "
            'expected; if each is the mask of a class, write "task": "multilabel" into classes.json'
        )
    if file.kind == "colors":
        return color_codes(file.pixels) if legend.has_colors else _grey(file.pixels)
    if file.kind == "indices":
        if legend.by_color:
            table = np.zeros(int(file.pixels.max()) + 1, np.int32)
            table[list(file.palette)] = list(file.palette.values())
            return table[file.pixels]
        if legend.by_color is None:
            _require_agreement(file, legend, name)
    return file.pixels


def _without_alpha(
    pixels: UInt8[np.ndarray, "h w bands"], missing: Bool[np.ndarray, "h w"] | None, name: str
) -> MaskFile:
    """Colours (or grey) with a constant alpha channel; or the alpha channel, where it alone varies."""
    color, alpha = np.broadcast_to(pixels[..., :-1], (*pixels.shape[:2], 3)), pixels[..., -1]
    if (alpha == alpha.flat[0]).all():
        return MaskFile("colors", color, missing)
    if (color == color[0, 0]).all():
        return MaskFile("alpha", alpha, missing)
    codes = color_codes(color).astype(np.int64) << 8
    if len(np.unique(codes | alpha)) > len(np.unique(codes)):
        raise UserError(
            f"{name}: its transparency varies within one colour, so two different masks are in it; save the one that "
            "is meant, in one channel"
        )
    return MaskFile("colors", color, missing)


def _grey(pixels: UInt8[np.ndarray, "h w 3"]) -> Codes:
    """Grey values where the three channels are equal, else the colours' codes."""
    first = pixels[..., 0]
    return first if (pixels == first[..., None]).all() else color_codes(pixels)


def _as_shares(values: Num[np.ndarray, "h w"]) -> Num[np.ndarray, "h w"]:
    return values if values.dtype.kind == "f" else values / np.iinfo(values.dtype).max


def _is_whole(values: Float[np.ndarray, "h w"], missing: Bool[np.ndarray, "h w"] | None) -> bool:
    return bool(((values == np.floor(values)) | (False if missing is None else missing)).all())


def _soft(file: MaskFile, name: str) -> SoftMaskError:
    broken = (file.pixels != np.floor(file.pixels)) & (True if file.missing is None else ~file.missing)
    row, column = np.argwhere(broken)[0].tolist()
    return SoftMaskError(
        f"{name}: holds the value {file.pixels[row, column]:g} (row {row}, column {column}), which is no class id; of "
        'a soft mask, write "threshold": 0.5 into classes.json: values from there on are the object'
    )


def _require_agreement(file: MaskFile, legend: Legend, name: str) -> None:
    """Raises UserError for a palette renumbered by an editor: its colours are classes', but not their indices'."""
    used = {index: color for index, color in file.palette.items() if legend.of(index) != legend.ignore_label}
    if not all(color in legend.colors for color in used.values()):
        return
    for index, color in used.items():
        if legend.of(index) != legend.colors[color]:
            raise PaletteError(
                f"{name}: its index {index} has the colour {name_of(color)} of class {legend.colors[color]}: if the "
                'colours are right, write "mask_palette": "color" into classes.json; if the indices are, "index"'
            )
