"""Segments an image file's bytes; the answer has mask, overlay, legend and timings, ready for JSON."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image

from deeplab_jax import visualize
from deeplab_jax.data.sources.file_formats import PICTURES, find_format
from deeplab_jax.data.sources.image_sizes import SizeLimit, TooLargeError
from deeplab_jax.data.sources.images import decode_image
from deeplab_jax.serving.settings import RefusedError, ServeConfig
from deeplab_jax.types import DatasetInfo, UserError

FORMATS = tuple(each.name for each in PICTURES)
_NAME = "image"  # name of the uploaded file in messages
_JPEG_QUALITY = 90

Mask = Integer[np.ndarray, "h w"] | Bool[np.ndarray, "h w c"]
Segment = Callable[[UInt8[np.ndarray, "h w 3"]], Callable[[], Mask]]


class Service:
    """Answers requests one at a time; may be called from several threads.

    Compiled programs are kept for `limits.max_shapes` sizes. If one more is needed, all are dropped and compiled again
    on demand, so that memory stays bounded and results do not depend on earlier requests.

    Args:
      make_segment: creates a function image -> function that waits for the class ids; a new one has nothing compiled.
      round_size: (height, width) of an image -> size at which it is computed.
    """

    def __init__(
        self,
        make_segment: Callable[[], Segment],
        round_size: Callable[[tuple[int, int]], tuple[int, int]],
        info: DatasetInfo,
        limits: ServeConfig,
    ):
        self.info = info
        self.limits = limits
        self._make_segment = make_segment
        self._round_size = round_size
        self._segment = make_segment()
        self._shapes: set[tuple[int, int]] = set()
        self._device = threading.Lock()

    def answer(self, data: bytes) -> dict[str, Any]:
        """Decodes, segments and draws.

        Returns:
          width, height; classes: id, name, color and share of those found, largest first; mask: a palette PNG (where
          classes overlap, their maps of 0 and 255 side by side in the order of the ids), and overlay: a JPEG, both
          base64; compiled: whether this size was new; timings_ms.

        Raises:
          RefusedError: if the data is not an image, or is damaged or too large.
        """
        clock = _Clock()
        image = decode(data, self.limits)
        clock.lap("decode")
        with self._device:
            clock.lap("wait")
            ids, is_new = self._run(image)
            clock.lap("network")
        mask = encode_mask(ids, self.info)
        overlay = encode_overlay(image, ids, self.info)
        clock.lap("draw")
        return {
            "width": image.shape[1],
            "height": image.shape[0],
            "classes": found_classes(ids, self.info),
            "mask": mask,
            "overlay": overlay,
            "compiled": is_new,
            "timings_ms": clock.laps,
        }

    def segment(self, image: UInt8[np.ndarray, "h w 3"]) -> Mask:
        """The image's class ids."""
        with self._device:
            return self._run(image)[0]

    def _run(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Mask, bool]:
        """The class ids, and whether a program had to be compiled for them."""
        is_new = self._keep_shape((image.shape[0], image.shape[1]))
        return self._segment(image)(), is_new

    def _keep_shape(self, size: tuple[int, int]) -> bool:
        """Registers `size`, dropping all programs if there are too many; returns whether it must be compiled."""
        shape = self._round_size(size)
        if shape in self._shapes:
            return False
        if len(self._shapes) >= self.limits.max_shapes:
            self._shapes.clear()
            self._segment = self._make_segment()
        self._shapes.add(shape)
        return True


def decode(data: bytes, limits: ServeConfig) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels; the header is checked before memory for them is allocated.

    Raises:
      RefusedError: 415 if the data is not an image, 413 if it is too large, 422 if it is damaged.
    """
    if not data:
        raise RefusedError(400, "the request is empty: send the content of an image file as its body")
    if find_format(data) not in PICTURES:
        raise RefusedError(415, f"this is no image: send {', '.join(FORMATS)}")
    try:
        return decode_image(data, _NAME, limit=SizeLimit(limits.max_pixels, limits.max_side))
    except TooLargeError as error:
        height, width = error.size
        raise RefusedError(
            413,
            f"the image has {width} x {height} pixels: at most {limits.max_pixels:,} are taken, and "
            f"{limits.max_side:,} on a side",
        ) from None
    except UserError as error:
        raise RefusedError(422, str(error)) from None


def encode_mask(ids: Mask, info: DatasetInfo) -> str:
    """Class ids as a palette PNG, base64; of classes that overlap, their maps side by side, 0 and 255."""
    if ids.ndim == 3:
        maps = np.concatenate(np.moveaxis(ids, -1, 0), axis=1)
        return _base64(Image.fromarray(maps.astype(np.uint8) * 255), "PNG")
    return _base64(visualize.mask_picture(ids, info.palette, info.ignore_label), "PNG")


def encode_overlay(image: UInt8[np.ndarray, "h w 3"], ids: Mask, info: DatasetInfo) -> str:
    """The image tinted by class as a JPEG, base64."""
    tinted = visualize.overlay(image, ids, info.palette, ignore_label=info.ignore_label)
    return _base64(Image.fromarray(tinted), "JPEG", quality=_JPEG_QUALITY)


def found_classes(ids: Mask, info: DatasetInfo) -> list[dict[str, Any]]:
    """id, name, RGB color and share of the pixels of each class that occurs, largest first."""
    counts = ids.sum(axis=(0, 1)) if ids.ndim == 3 else np.bincount(ids.ravel(), minlength=info.num_classes)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    return [
        {
            "id": int(class_id),
            "name": info.class_names[class_id],
            "color": list(info.palette[class_id]),
            "share": round(float(counts[class_id] / (ids.shape[0] * ids.shape[1])), 6),
        }
        for class_id in order
    ]


def _base64(picture: Image.Image, file_format: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


class _Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(1e3 * (now - self._last), 2)
        self._last = now
