"""The program that an exported file computes, and the interface of an export format."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import max_dim
from jaxtyping import Array, Num

from deeplab_jax.canvas import Canvas
from deeplab_jax.ops.tasks import EVEN, find_task
from deeplab_jax.types import ApplyFn, Image, Pixel, UserError, Variables

OUTPUTS = ("class_ids", "logits", "probabilities")
INPUT = "images"  # name of the single input, in formats with names
SMALLEST = 2  # shortest side in pixels, in formats that take any size

# By name, as in OUTPUTS, at the images' size: [b, h, w, c], class ids [b, h, w] (where classes overlap 0 or 1 of each).
Outputs = Mapping[str, Array]
Runner = Callable[[Num[np.ndarray, "b h w bands"]], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """Maps images as stored to outputs at the images' size; the weights are constants.

    Attributes:
      run: images -> outputs by name; image sizes may be symbolic.
      outputs: names of the outputs, a subset of OUTPUTS.
      canvas: size at which the network computes.
      pad_pixel: value of the padding.
      dtype: of the images; 'uint8' for RGB.
    """

    run: Callable[[Image], Outputs]
    outputs: tuple[str, ...]
    canvas: Canvas
    pad_pixel: Pixel
    dtype: str

    @property
    def channels(self) -> int:
        return len(self.pad_pixel)


@dataclasses.dataclass(frozen=True, slots=True)
class Format:
    """One kind of exported file.

    Attributes:
      file_name: name of the file or folder that is written.
      load: path -> function that runs the file, as its users will.
      packages: pip names of what `write` and `load` need beyond the project's requirements.
      modules: import names of the same.
      any_size: whether images may vary in size; else all have the size of the canvas, which must be fixed.
      any_batch: whether the batch size may vary; else it is 1.
      any_dtype: whether it can compute in bfloat16.
    """

    file_name: str
    write: Callable[[Program, pathlib.Path], None]
    load: Callable[[pathlib.Path], Runner]
    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    any_size: bool = False
    any_batch: bool = True
    any_dtype: bool = False


def require_packages(name: str, file_format: Format) -> None:
    """Raises UserError with the pip command if a package of the format is missing."""
    if any(importlib.util.find_spec(module) is None for module in file_format.modules):
        raise UserError(f"--format={name}: needs more packages: pip install {' '.join(file_format.packages)}")


def make_program(
    apply_fn: ApplyFn,
    variables: Variables,
    *,
    outputs: Sequence[str],
    canvas: Canvas,
    pad_pixel: Pixel,
    dtype: str = "uint8",
    task: str = "multiclass",
    thresholds: Sequence[float] = (EVEN,),
) -> Program:
    """The network as a program for export.

    It pads images as the predictor does and crops the outputs, so that users of the file need not know about padding.

    Args:
      apply_fn: (variables, images, train=False) -> logits at its input's size.
      outputs: a subset of OUTPUTS.
      canvas: size at which the network computes.
      pad_pixel: value of the padding.
      dtype: of the images.
      task: of the logits.
      thresholds: above which a class of a sigmoid is there.
    """
    kind = find_task(task)
    functions: Mapping[str, Callable[[Array], Array]] = {
        "class_ids": lambda logits: _as_ids(kind.decide(kind.probabilities(logits), thresholds)),
        "logits": lambda logits: logits,
        "probabilities": kind.probabilities,
    }
    if task == "multiclass":
        functions = {**functions, "class_ids": kind.likeliest}  # the same, without a softmax
    values = jax.tree.map(np.asarray, variables)

    def run(images: Image) -> Outputs:
        height, width = images.shape[1], images.shape[2]
        padded = pad_images(images, canvas.around((height, width), maximum=max_dim), pad_pixel)
        logits = apply_fn(values, padded, train=False)[:, :height, :width].astype(jnp.float32)
        return {name: functions[name](logits) for name in outputs}

    return Program(run, tuple(outputs), canvas, pad_pixel, dtype)


def pad_images(images: Image, size: tuple[int, int], pad_pixel: Pixel) -> Num[Array, "b ph pw bands"]:
    """Pads images at the bottom and right to `size` with `pad_pixel`; either size may be symbolic."""
    if images.shape[1:3] == size:
        return images
    below, beside = (large - small for large, small in zip(size, images.shape[1:3], strict=True))
    edges = ((0, 0, 0), (0, below, 0), (0, beside, 0), (0, 0, 0))
    channels = [
        lax.pad(images[..., channel : channel + 1], np.asarray(value, images.dtype), edges)
        for channel, value in enumerate(pad_pixel)
    ]
    return jnp.concatenate(channels, axis=-1)


def _as_ids(prediction: Array) -> Array:
    """Maps of overlapping classes as bytes, which all formats have."""
    return prediction.astype(jnp.uint8) if prediction.dtype == bool else prediction
