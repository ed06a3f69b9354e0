"""A trained network as a function of images of any size."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from deeplab_jax.canvas import pad_image
from deeplab_jax.inference.crf import refine
from deeplab_jax.inference.finite import all_finite, require_finite
from deeplab_jax.inference.forward import Forward, make_forward
from deeplab_jax.inference.resizing import ResizeRule, resize_back, resize_image, resize_rule
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.ops.crf.parameters import CRFPreset
from deeplab_jax.ops.tasks import EVEN, Prediction, find_task
from deeplab_jax.types import ApplyFn, Image, Pixel, Pixels, Variables

Predictor = Callable[[Pixels], Float[np.ndarray, "h w c"]]
AsyncPredictor = Callable[[Pixels], Callable[[], Float[np.ndarray, "h w c"]]]
Segmenter = Callable[[Pixels], Callable[[], Prediction]]
BatchSegmenter = Callable[[Sequence[Pixels]], list[Callable[[], Prediction]]]
BatchPredictor = Callable[[Sequence[Pixels]], list[Callable[[], Float[np.ndarray, "h w c"]]]]
Announce = Callable[[tuple[int, ...], int], None]  # (batch shape about to be compiled, number of shapes so far)


@dataclasses.dataclass(frozen=True, slots=True)
class PredictorOptions:
    """How an image goes through the network: the settings, and what depends on more than them.

    Images are padded with `pad_pixel` at the bottom and right; the padding is cropped from the result.
    """

    settings: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    align_corners: bool = True
    pad_pixel: Pixel = (0, 0, 0)
    task: str = "multiclass"
    thresholds: tuple[float, ...] = (EVEN,)  # above which a class of a sigmoid is there; one for all, or one for each
    crf: CRFPreset | None = None  # the one named by `settings.crf`; refines the probabilities, without the padding

    @property
    def resize(self) -> ResizeRule | None:
        """How images are resized first; the result is resized back to the image's own size."""
        return resize_rule(self.settings)

    @property
    def on_host(self) -> bool:
        """Whether probabilities are post-processed on the host, image by image."""
        return self.crf is not None or self.resize is not None


def canvas_size(size: tuple[int, int], options: PredictorOptions) -> tuple[int, int]:
    """The (height, width) at which an image of `size` is computed; images with the same canvas can share a batch."""
    inner = options.resize.size(size) if options.resize else size
    return options.settings.canvas.around(inner)


class ShapeLog:
    """Announces each batch shape the first time it is seen, which is when it is compiled."""

    def __init__(self, announce: Announce | None) -> None:
        self._announce = announce
        self._seen: set[tuple[int, ...]] = set()

    def note(self, shape: tuple[int, ...]) -> None:
        """A batch of this shape is about to be computed."""
        if shape not in self._seen:
            self._seen.add(shape)
            if self._announce:
                self._announce(shape, len(self._seen))


def make_predictor(apply_fn: ApplyFn, variables: Variables, options: PredictorOptions) -> Predictor:
    """Returns image -> class probabilities at the image's own size, on the host.

    Args:
      apply_fn: (variables, images, train=False) -> logits at its input's size.
      variables: they stay on the device.
    """
    start = make_async_predictor(apply_fn, variables, options)
    return lambda image: start(image)()


def make_async_predictor(
    apply_fn: ApplyFn, variables: Variables, options: PredictorOptions, announce: Announce | None = None
) -> AsyncPredictor:
    """Like `make_predictor`, but the call only dispatches, and returns a function that waits for the probabilities.

    Host work such as a CRF is done when they are requested, while the device computes the next image.
    """
    forward = jax.jit(_forward(apply_fn, options))
    shapes = ShapeLog(announce)

    def start(image: Pixels) -> Callable[[], Float[np.ndarray, "h w c"]]:
        canvas = _canvas(image, options)[None]
        shapes.note(canvas.shape)
        return functools.partial(_finish, forward(variables, canvas), 0, image, options)

    return start


def make_segmenter(apply_fn: ApplyFn, variables: Variables, options: PredictorOptions) -> Segmenter:
    """Returns image -> a function that waits for the image's class ids, or class maps, at its own size.

    The call only dispatches, so that the next image can be computed while this one is fetched. Only the prediction is
    transferred to the host, a fraction of the size of the probabilities.
    """
    segment = make_batch_segmenter(apply_fn, variables, options)
    return lambda image: segment([image])[0]


def make_batch_segmenter(
    apply_fn: ApplyFn, variables: Variables, options: PredictorOptions, announce: Announce | None = None
) -> BatchSegmenter:
    """Like `make_segmenter`, for several images of one `canvas_size`. Each number of images is compiled separately."""
    if options.on_host:
        predict = make_batch_predictor(apply_fn, variables, options, announce)
        return lambda images: [functools.partial(_decide, wait, options) for wait in predict(images)]
    forward, shapes = _forward(apply_fn, options), ShapeLog(announce)

    @jax.jit
    def predictions(variables: Variables, images: Image) -> tuple[Array, Bool[Array, " b"]]:
        probabilities = forward(variables, images)
        return find_task(options.task).decide(probabilities, options.thresholds), all_finite(probabilities)

    def segment(images: Sequence[Num[np.ndarray, "_h _w bands"]]) -> list[Callable[[], Prediction]]:
        canvases = np.stack([_canvas(image, options) for image in images])
        shapes.note(canvases.shape)
        found, finite = predictions(variables, canvases)
        return [functools.partial(_fetch, found, finite, row, image.shape[:2]) for row, image in enumerate(images)]

    return segment


def make_batch_predictor(
    apply_fn: ApplyFn, variables: Variables, options: PredictorOptions, announce: Announce | None = None
) -> BatchPredictor:
    """Like `make_batch_segmenter`, for the probabilities."""
    forward, shapes = jax.jit(_forward(apply_fn, options)), ShapeLog(announce)

    def predict(images: Sequence[Num[np.ndarray, "_h _w bands"]]) -> list[Callable[[], Float[np.ndarray, "h w c"]]]:
        canvases = np.stack([_canvas(image, options) for image in images])
        shapes.note(canvases.shape)
        probabilities = forward(variables, canvases)
        return [functools.partial(_finish, probabilities, row, image, options) for row, image in enumerate(images)]

    return predict


def _forward(apply_fn: ApplyFn, options: PredictorOptions) -> Forward:
    return make_forward(apply_fn, options.settings, align_corners=options.align_corners, task=options.task)


def _canvas(image: Pixels, options: PredictorOptions) -> Num[np.ndarray, "ph pw bands"]:
    size = canvas_size((image.shape[0], image.shape[1]), options)
    return pad_image(resize_image(image, options.resize) if options.resize else image, size, options.pad_pixel)


def _fetch(found: Array, finite: Bool[Array, " b"], row: int, size: tuple[int, int]) -> Prediction:
    require_finite(np.asarray(finite)[row])
    return np.asarray(found)[row, : size[0], : size[1]]


def _finish(
    probabilities: Float[Array, "b ph pw c"], row: int, image: Pixels, options: PredictorOptions
) -> Float[np.ndarray, "h w c"]:
    """A row's probabilities at its image's own size, refined by the CRF if there is one."""
    size = (image.shape[0], image.shape[1])
    if options.resize:
        height, width = options.resize.size(size)
        own = resize_back(np.asarray(probabilities)[row, :height, :width], size)
        require_finite(np.isfinite(own).all())
        return refine(jnp.asarray(own), image, options.crf) if options.crf else own
    if options.crf:
        return refine(probabilities[row], image, options.crf)
    own = np.asarray(probabilities)[row, : size[0], : size[1]]
    require_finite(np.isfinite(own).all())
    return own


def _decide(wait: Callable[[], Float[np.ndarray, "h w c"]], options: PredictorOptions) -> Prediction:
    return find_task(options.task).decide(wait(), options.thresholds)
