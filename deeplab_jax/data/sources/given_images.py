"""Pixels of an image that a caller passes in; errors say what was expected, what came, and the remedy."""

from __future__ import annotations

import os
import pathlib

import numpy as np
from jaxtyping import Num
from numpy.typing import ArrayLike
from PIL import Image

from deeplab_jax.data.sources.bands import decode_pixels, describe_format
from deeplab_jax.data.sources.images import convert_picture
from deeplab_jax.types import DatasetInfo, UserError

GivenImage = str | os.PathLike[str] | Image.Image | ArrayLike


def read_image(image: GivenImage, info: DatasetInfo) -> Num[np.ndarray, "h w bands"]:
    """The pixels of a path, a PIL image or an array, as a network for the data set expects them.

    Files and PIL images are converted to RGB and rotated by their EXIF orientation; arrays are taken as they are.

    Raises:
      UserError: when a file cannot be read.
      ValueError: when an array or a PIL image is not such an image.
    """
    if isinstance(image, (str, os.PathLike)):
        path = pathlib.Path(image).expanduser()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        return decode_pixels(data, str(path), info)
    if isinstance(image, Image.Image):
        if info.is_rgb:
            return convert_picture(image, "the PIL image")
        image = np.asarray(image)  # check_pixels looks at its channels and type
    return check_pixels(image, info, "an image [height, width, {channels}]")


def check_batch(images: ArrayLike, info: DatasetInfo) -> Num[np.ndarray, "b h w bands"]:
    """Images of one size as an array; raises ValueError if they are not such a batch."""
    return check_pixels(images, info, "a batch of images [batch, height, width, {channels}]", num_axes=4)


def check_pixels(pixels: ArrayLike, info: DatasetInfo, wanted: str, num_axes: int = 3) -> np.ndarray:
    """The array, checked: not empty, with `num_axes` axes and the channels and type of the data set's images."""
    array = np.asarray(pixels)
    remedy = _remedy_for_shape(array, info, num_axes) or _remedy_for_type(array, info)
    if remedy:
        kind = "RGB bytes, " if info.is_rgb else ""
        came = f"{array.dtype} {list(array.shape)}{_range(array)}"
        expected = f"{wanted.format(channels=info.channels)} of {info.dtype}"
        raise ValueError(f"expected {kind}{expected}; got {came}: {remedy}")
    return array


def _remedy_for_shape(array: np.ndarray, info: DatasetInfo, num_axes: int) -> str:
    channels, is_batch = info.channels, num_axes == 4
    if array.dtype.kind not in "buif":
        return "convert it to an array of numbers"
    if array.ndim == num_axes + 1:
        return "pass images[0], or a list of images: list(images)" if not is_batch else "it has one axis too many"
    first_channel = num_axes - 3
    if array.ndim == num_axes and array.shape[-1] != channels:
        if array.shape[first_channel] == channels:
            axes = "0, 2, 3, 1" if is_batch else "1, 2, 0"
            return f"the channels come first: pass image.transpose({axes})"
        if info.is_rgb and array.shape[-1] == 4:
            return "it has an alpha channel (RGBA): pass image[..., :3]"
        if info.is_rgb and array.shape[-1] == 1:
            return "it is grey: pass np.repeat(image, 3, axis=-1)"
        return f"it has {array.shape[-1]} channels, the network takes {describe_format(channels, info.dtype)}"
    if array.ndim == num_axes - 1:
        if array.shape[-1:] == (channels,) and is_batch:
            return "it is one image: pass image[None]"
        if info.is_rgb:
            return "it is grey: pass np.repeat(image[..., None], 3, axis=-1)"
    if array.ndim != num_axes:
        return f"it has {array.ndim} axes, not {num_axes}"
    return "it has no pixels" if not array.size else ""


def _remedy_for_type(array: np.ndarray, info: DatasetInfo) -> str:
    if array.dtype == info.dtype:
        return ""
    if info.dtype == "uint8" and array.dtype.kind == "f":
        scaled = "image * 255" if array.max() <= 1 else "image"
        return f"pass np.clip(({scaled}).round(), 0, 255).astype(np.uint8)" if array.min() >= 0 else _UNNORMALISED
    if info.dtype == "uint8" and array.dtype == np.uint16 and array.max() > 255:
        return "it has 16 bits: pass (image >> 8).astype(np.uint8)"
    return f"pass image.astype(np.{info.dtype}), if its values are in the same units"


_UNNORMALISED = "it seems normalised already, which the network does itself: pass the image's own pixels"


def _range(array: np.ndarray) -> str:
    if not array.size or array.dtype.kind not in "buif" or array.dtype == np.uint8:
        return ""
    return f" with values in [{array.min():g}, {array.max():g}]"
