"""A trained network as a function of one image of any size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from deeplab_jax.inference.forward import make_forward
from deeplab_jax.ops.crf_parameters import CRFPreset, unary_from_probabilities
from deeplab_jax.ops.mean_field import mean_field
from deeplab_jax.types import ApplyFn, Image, Variables

Predictor = Callable[[UInt8[np.ndarray, "h w 3"]], Float[np.ndarray, "h w c"]]
Segmenter = Callable[[UInt8[np.ndarray, "h w 3"]], Callable[[], Int[np.ndarray, "h w"]]]


@dataclasses.dataclass(frozen=True, slots=True)
class PredictorOptions:
    """How an image goes through the network.

    Padding is at the bottom and on the right, made of `pad_pixel`, and cropped away from the result.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    align_corners: bool = True
    pad_to: tuple[int, int] = (0, 0)  # (height, width); (0, 0), and for larger images: buckets
    bucket: int = 64  # each axis is padded to the next bucket * k + 1, so that few sizes are compiled
    pad_pixel: tuple[int, int, int] = (0, 0, 0)
    crf: CRFPreset | None = None  # refines the probabilities, on the image's own pixels


def padded_size(size: tuple[int, int], *, pad_to: tuple[int, int], bucket: int) -> tuple[int, int]:
    """The (height, width) at which an image of `size` is computed: `pad_to` where it fits in, else bucket * k + 1."""
    if size[0] <= pad_to[0] and size[1] <= pad_to[1]:
        return pad_to
    height, width = (max(1, -(-(axis - 1) // bucket)) * bucket + 1 for axis in size)
    return height, width


def pad_image(
    image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int], pad_pixel: tuple[int, int, int]
) -> UInt8[np.ndarray, "ph pw 3"]:
    """`image` in the upper left corner of a canvas of `size` made of `pad_pixel`."""
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = pad_pixel
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def make_predictor(apply_fn: ApplyFn, variables: Variables, options: PredictorOptions) -> Predictor:
    """Returns an image -> class probabilities at the image's own size, on the host.

    Args:
      apply_fn: (variables, images, train=False) -> logits at its input's size.
      variables: of `apply_fn`; they stay on the device.
      options: scales, mirror images and padding.
    """
    forward = jax.jit(_forward(apply_fn, options))

    def predict(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w c"]:
        height, width = image.shape[:2]
        probabilities = np.asarray(forward(variables, _padded(image, options))[0])[:height, :width]
        return refine(probabilities, image, options.crf) if options.crf else probabilities

    return predict


def refine(
    probabilities: Float[np.ndarray, "h w c"], image: UInt8[np.ndarray, "h w 3"], crf: CRFPreset
) -> Float[np.ndarray, "h w c"]:
    """The marginals of a fully connected CRF whose unary term the probabilities are."""
    unary = unary_from_probabilities(jnp.asarray(probabilities))
    return np.asarray(mean_field(unary, jnp.asarray(image), crf.params, num_iterations=crf.num_iterations))


def make_segmenter(apply_fn: ApplyFn, variables: Variables, options: PredictorOptions) -> Segmenter:
    """Returns an image -> a function that waits for the image's class ids, at its own size.

    The call only starts the device, so that the next image can follow while this one is fetched;
    class ids cross to the host, a fraction of what the probabilities would be.

    Args: as for `make_predictor`.
    """
    if options.crf:
        return _refining_segmenter(apply_fn, variables, options, options.crf)
    forward = _forward(apply_fn, options)

    @jax.jit
    def class_ids(variables: Variables, images: Image) -> Int[Array, "b h w"]:
        probabilities = forward(variables, images)
        dtype = jnp.uint8 if probabilities.shape[-1] <= 256 else jnp.int32
        return jnp.argmax(probabilities, axis=-1).astype(dtype)

    def segment(image: UInt8[np.ndarray, "h w 3"]) -> Callable[[], Int[np.ndarray, "h w"]]:
        height, width = image.shape[:2]
        ids = class_ids(variables, _padded(image, options))
        return lambda: np.asarray(ids[0])[:height, :width]

    return segment


def _refining_segmenter(
    apply_fn: ApplyFn, variables: Variables, options: PredictorOptions, crf: CRFPreset
) -> Segmenter:
    """As `make_segmenter`; the CRF runs when the result is asked for, while the device has the next image."""
    forward = jax.jit(_forward(apply_fn, options))

    def segment(image: UInt8[np.ndarray, "h w 3"]) -> Callable[[], Int[np.ndarray, "h w"]]:
        height, width = image.shape[:2]
        probabilities = forward(variables, _padded(image, options))

        def wait() -> Int[np.ndarray, "h w"]:
            refined = refine(np.asarray(probabilities[0])[:height, :width], image, crf)
            return refined.argmax(-1).astype(np.uint8 if refined.shape[-1] <= 256 else np.int32)

        return wait

    return segment


def _forward(apply_fn: ApplyFn, options: PredictorOptions) -> Callable[[Variables, Image], Array]:
    return make_forward(apply_fn, scales=options.scales, flip=options.flip, align_corners=options.align_corners)


def _padded(image: UInt8[np.ndarray, "h w 3"], options: PredictorOptions) -> UInt8[np.ndarray, "1 h w 3"]:
    size = padded_size((image.shape[0], image.shape[1]), pad_to=options.pad_to, bucket=options.bucket)
    return pad_image(image, size, options.pad_pixel)[None]
