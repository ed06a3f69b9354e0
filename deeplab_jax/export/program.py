"""What an exported file computes, and what a format of such files is."""

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
from deeplab_jax.types import ApplyFn, Image, Pixel, UserError, Variables

OUTPUTS = ("class_ids", "logits", "probabilities")
INPUT = "images"  # the name of the one input, where a format has names
SMALLEST = 2  # pixels of a side, where any size is taken

Outputs = Mapping[str, Array]  # by name, as in OUTPUTS; [b, h, w] or [b, h, w, c] at the images' size
Runner = Callable[[Num[np.ndarray, "b h w bands"]], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """Images as they are stored in, outputs at their own size out; the weights are constants of it.

    Attributes:
      run: images -> outputs by name; their sizes may be symbolic.
      outputs: names of what it gives, some of OUTPUTS.
      canvas: at which the network computes.
      pad_pixel: what padding is made of.
      dtype: of the images: 'uint8' for RGB.
    """

    run: Callable[[Image], Outputs]
    outputs: tuple[str, ...]
    canvas: Canvas
    pad_pixel: Pixel
    dtype: str

    @property
    def channels(self) -> int:
        """Of the images."""
        return len(self.pad_pixel)


@dataclasses.dataclass(frozen=True, slots=True)
class Format:
    """One kind of exported file.

    Attributes:
      file_name: of the file, or folder, that is written.
      write: (program, path) -> None.
      load: path -> what runs the file, as its users will.
      packages: what the two need beyond the project's requirements, as pip knows them.
      modules: the same, as Python imports them.
      any_size: whether images may differ in size; else all have that of the canvas, which must be fixed.
      any_batch: whether any number of images may be taken at once; else one.
      any_dtype: whether it may compute in bfloat16.
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
    """Raises UserError, with the command that mends it, where a package of the format is missing."""
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
) -> Program:
    """The network as a program for export.

    Images are padded, as the predictor pads them, and the outputs are cropped: the file's users need know nothing
    of it.

    Args:
      apply_fn: (variables, images, train=False) -> logits at its input's size.
      variables: of `apply_fn`.
      outputs: which of OUTPUTS.
      canvas: at what size the network computes.
      pad_pixel: what padding is made of.
      dtype: of the images.
    """
    values = jax.tree.map(np.asarray, variables)

    def run(images: Image) -> Outputs:
        height, width = images.shape[1], images.shape[2]
        padded = pad_images(images, canvas.around((height, width), maximum=max_dim), pad_pixel)
        logits = apply_fn(values, padded, train=False)[:, :height, :width].astype(jnp.float32)
        return {name: _OUTPUT_FUNCTIONS[name](logits) for name in outputs}

    return Program(run, tuple(outputs), canvas, pad_pixel, dtype)


def pad_images(images: Image, size: tuple[int, int], pad_pixel: Pixel) -> Num[Array, "b ph pw bands"]:
    """Images in the upper left corner of a canvas of `size` made of `pad_pixel`; either size may be symbolic."""
    if images.shape[1:3] == size:
        return images
    below, beside = (large - small for large, small in zip(size, images.shape[1:3], strict=True))
    edges = ((0, 0, 0), (0, below, 0), (0, beside, 0), (0, 0, 0))
    channels = [
        lax.pad(images[..., channel : channel + 1], np.asarray(value, images.dtype), edges)
        for channel, value in enumerate(pad_pixel)
    ]
    return jnp.concatenate(channels, axis=-1)


def id_dtype(num_classes: int) -> type[np.unsignedinteger | np.signedinteger]:
    """The dtype of class ids: bytes where they suffice."""
    return np.uint8 if num_classes <= 256 else np.int32


def _class_ids(logits: Array) -> Array:
    return jnp.argmax(logits, axis=-1).astype(id_dtype(logits.shape[-1]))


_OUTPUT_FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "class_ids": _class_ids,
    "logits": lambda logits: logits,
    "probabilities": jax.nn.softmax,
}
