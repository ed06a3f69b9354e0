"""StableHLO: JAX's portable program format, one file for CPU, CUDA and TPU, run without this project."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from jax import export
from jaxtyping import Num

from deeplab_jax.export.program import SMALLEST, Format, Program, Runner
from deeplab_jax.types import UserError

PLATFORMS = ("cpu", "cuda", "tpu")


def write(program: Program, path: pathlib.Path) -> None:
    """Writes the program for any number of images of any height and width, or up to those of a fixed canvas.

    JAX guarantees to read such a file for six months, StableHLO for five years.

    Raises:
      UserError: if the network cannot be written without knowing the image size.
    """
    constraints = [f"{axis} >= {SMALLEST}" for axis in ("h", "w")]
    if program.canvas.is_fixed:
        constraints += [
            f"{axis} <= {largest}" for axis, largest in zip(("h", "w"), program.canvas.smallest, strict=True)
        ]
    shape = export.symbolic_shape(f"b, h, w, {program.channels}", constraints=constraints)
    images = jax.ShapeDtypeStruct(shape, program.dtype)
    try:
        exported = export.export(jax.jit(program.run), platforms=PLATFORMS)(images)
    except Exception as error:
        if program.canvas.is_fixed or not _is_about_sizes(error):
            raise
        raise UserError(
            f"this network must know at what size it computes ({_first_line(error)}): give "
            "--config.export.size='(513, 513)' or another (height, width)"
        ) from None
    path.write_bytes(exported.serialize())


def load(path: pathlib.Path) -> Runner:
    """Returns a function that runs the file on this machine's device; each image size is compiled once."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)

    def run(images: Num[np.ndarray, "b h w bands"]) -> Mapping[str, np.ndarray]:
        return {name: np.asarray(output) for name, output in call(images).items()}

    return run


def file_format() -> Format:
    """The format, for the registry."""
    return Format("model.stablehlo", write, load, ("flatbuffers",), ("flatbuffers",), any_size=True, any_dtype=True)


def _is_about_sizes(error: Exception) -> bool:
    """JAX says it in several ways: a comparison that cannot be decided, a number that was to be an integer."""
    return isinstance(error, (TypeError, ValueError)) or "Dimension" in type(error).__name__


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".:")[:120]
