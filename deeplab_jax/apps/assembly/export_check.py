"""Checks on real images that an exported file computes the same as the network."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Num

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.image_files import expand_images
from deeplab_jax.canvas import pad_image
from deeplab_jax.config import Config
from deeplab_jax.data.sources.images import decode_image
from deeplab_jax.data.sources.rendering import render_scene
from deeplab_jax.export.program import Format, Program, Runner
from deeplab_jax.inference.predictor import PredictorOptions
from deeplab_jax.ops.tasks import find_task
from deeplab_jax.types import DatasetInfo, UserError, Variables

MAX_LOGIT_DIFFERENCE = 1e-3
MIN_SAME_PIXELS = 0.999
_NUM_IMAGES = 4
_RENDERED_SIZE = (120, 160)

NamedImages = Mapping[str, Num[np.ndarray, "h w bands"]]


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """How closely the file's results match the network's."""

    images: tuple[str, ...]  # names
    largest_logit_difference: float | None  # over all pixels and classes; None: the file outputs no logits
    same_pixels: float  # fraction of pixels with the same class, minimum over the images
    platform: str  # on which both were run

    @property
    def is_good(self) -> bool:
        near = self.largest_logit_difference is None or self.largest_logit_difference <= MAX_LOGIT_DIFFERENCE
        return near and self.same_pixels >= MIN_SAME_PIXELS


def find_check_images(config: Config, info: DatasetInfo, images: str) -> NamedImages:
    """Images to compare on: `images` if given, else the first of the evaluation split.

    A workdir with imported weights may have no data set; then rendered scenes are used.

    Raises:
      UserError: if `images` matches nothing, or not RGB images.
    """
    if images and not info.is_rgb:
        raise UserError(f"--images={images}: the network takes {info.channels} channels; leave it out")
    if images:
        paths = expand_images(images)[:_NUM_IMAGES]
        return {path.name: decode_image(_read(path), str(path)) for path in paths}
    try:
        split = open_data.open_dataset(config).open_split(config.data.eval_split)
    except UserError:
        if not info.is_rgb:
            raise
        return made_up_images(info)
    examples = [split[index] for index in range(min(_NUM_IMAGES, len(split)))]
    return {example.name: example.image for example in examples}


def made_up_images(info: DatasetInfo) -> NamedImages:
    """Synthetic images to compare on: rendered scenes, or for data other than RGB, noise in its range."""
    drawn = {seed: np.random.default_rng(seed) for seed in range(_NUM_IMAGES)}
    if info.is_rgb:
        return {f"rendered scene {seed}": render_scene(rng, _RENDERED_SIZE)[0] for seed, rng in drawn.items()}
    shape = (*_RENDERED_SIZE, info.channels)
    noise = {seed: rng.normal(info.channel_mean, info.channel_std, shape) for seed, rng in drawn.items()}
    if info.dtype != "float32":
        largest = np.iinfo(info.dtype).max
        noise = {seed: np.clip(image, 0, largest) for seed, image in noise.items()}
    return {f"noise {seed}": image.astype(info.dtype) for seed, image in noise.items()}


def check_file(
    run: Runner,
    program: Program,
    file_format: Format,
    model: nn.Module,
    variables: Variables,
    images: NamedImages,
    options: PredictorOptions,
) -> Agreement:
    """Compares the file's results with the network's on each image and, in the same batch, its mirror image.

    Args:
      run: the file, read back.
      program: what was written.
      images: by name; cropped to a fixed canvas.
      options: task and thresholds of the network.
    """
    apply = jax.jit(functools.partial(model.apply, train=False))
    differences, same = [], []
    for image in images.values():
        image = _fit(image, program, exactly=not file_format.any_size)
        batch = np.stack([image, image[:, ::-1]] if file_format.any_batch else [image])
        height, width = image.shape[:2]
        size = program.canvas.around((height, width))
        padded = np.stack([pad_image(row, size, program.pad_pixel) for row in batch])
        expected = np.asarray(apply(variables, padded))[:, :height, :width]
        results = run(batch)
        if "logits" in results:
            differences.append(float(np.abs(results["logits"] - expected).max()))
        same.append(float((_decided(results, options) == _decided({"logits": expected}, options)).mean()))
    largest = max(differences) if differences else None
    return Agreement(tuple(images), largest, min(same), jax.default_backend())


def _decided(results: Mapping[str, np.ndarray], options: PredictorOptions) -> np.ndarray:
    if "class_ids" in results:
        return results["class_ids"]
    task = find_task(options.task)
    probabilities = results["probabilities"] if "probabilities" in results else task.probabilities(results["logits"])
    return task.decide(np.asarray(probabilities), options.thresholds)


def _fit(image: Num[np.ndarray, "h w bands"], program: Program, *, exactly: bool) -> Num[np.ndarray, "h2 w2 bands"]:
    """The image cropped to a fixed canvas and, if `exactly`, padded to it."""
    if not program.canvas.is_fixed:
        return image
    size = program.canvas.smallest
    image = image[: size[0], : size[1]]
    return pad_image(image, size, program.pad_pixel) if exactly else image


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
