"""TensorFlow's SavedModel, written with jax2tf, for TF Serving and everything else that reads it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Num

from deeplab_jax.export.program import INPUT, Format, Program, Runner

_SIGNATURE = "serving_default"
_PLATFORMS = ("cpu", "cuda", "tpu")


def write(program: Program, path: pathlib.Path) -> None:
    """Writes a folder whose function takes any number of images of the canvas's size."""
    import tensorflow as tf

    function = as_tensorflow(program, "b", platforms=_PLATFORMS)
    module = tf.Module()
    module.run = function
    tf.saved_model.save(module, str(path), signatures={_SIGNATURE: function.get_concrete_function()})


def load(path: pathlib.Path) -> Runner:
    """Returns a function that runs the folder in TensorFlow."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # the function lives only as long as this object
    function = loaded.signatures[_SIGNATURE]

    def run(images: Num[np.ndarray, "b h w bands"]) -> Mapping[str, np.ndarray]:
        return {name: output.numpy() for name, output in function(**{INPUT: tf.constant(images)}).items()}

    return run


def as_tensorflow(program: Program, batch: str, platforms: tuple[str, ...]) -> Any:
    """The program as a tf.function with one known signature.

    Args:
      program: what it computes.
      batch: the number of images, or a letter for any.
      platforms: that it is lowered for.
    """
    import tensorflow as tf
    from jax.experimental import jax2tf

    height, width = program.canvas.smallest
    rank_and_sizes = f"{batch}, {height}, {width}, {program.channels}"
    converted = jax2tf.convert(
        program.run, polymorphic_shapes=[rank_and_sizes], with_gradient=False, native_serialization_platforms=platforms
    )
    num_images = int(batch) if batch.isdigit() else None
    spec = tf.TensorSpec((num_images, height, width, program.channels), program.dtype, name=INPUT)
    return tf.function(converted, input_signature=[spec], autograph=False)


def file_format() -> Format:
    """The format, for the registry."""
    return Format("saved_model", write, load, ("tensorflow-cpu",), ("tensorflow",))
