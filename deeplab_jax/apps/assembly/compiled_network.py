"""A network compiled for one set of predictor options, whatever images come."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, Num

from deeplab_jax import registry
from deeplab_jax.apps.assembly import network
from deeplab_jax.apps.assembly.image_kind import check_images
from deeplab_jax.apps.assembly.predictor_settings import predictor_options
from deeplab_jax.config import Config
from deeplab_jax.inference.predictor import canvas_size, make_async_predictor, make_batch_segmenter
from deeplab_jax.types import ApplyFn, DatasetInfo, UserError, Variables
from deeplab_jax.validation import validate

# Settings of inference that concern the scoring of a data set, and no image by itself.
_OF_SCORING = ("protocol", "resize_labels", "center_crop", "measures", "threshold_split")

Pixels = Num[np.ndarray, "_ _ bands"]
Mask = Integer[np.ndarray, "_ _"] | Bool[np.ndarray, "_ _ classes"]
Probabilities = Float[np.ndarray, "_ _ classes"]


class CompiledNetwork:
    """A network under one set of options; each size of images is compiled for once."""

    def __init__(self, apply_fn: ApplyFn, variables: Variables, config: Config, info: DatasetInfo) -> None:
        """`config.inference` has the options. Raises ValueError where they cannot work."""
        with value_errors():
            check_images(config, info)
            self._options = predictor_options(config, info)
        if config.inference.compute_dtype:
            apply_fn = network.build(network.for_inference(config), info).apply
        self._segment = make_batch_segmenter(apply_fn, variables, self._options)
        self._start = make_async_predictor(apply_fn, variables, self._options)

    def segment(self, images: Sequence[Pixels]) -> list[Mask]:
        """The class ids of each image; those that are computed at one size share full batches."""
        waits: dict[int, Callable[[], Mask]] = {}
        for batch in self._batches(images):
            waits |= zip(batch, self._segment([images[index] for index in batch]), strict=True)
        return [waits[index]() for index in range(len(images))]

    def probabilities(self, images: Sequence[Pixels]) -> list[Probabilities]:
        """Those of each image, one after the other."""
        return [self._start(image)() for image in images]

    def _batches(self, images: Sequence[Pixels]) -> list[list[int]]:
        """Places of the images that go together: full batches, the rest one by one; two programs for each size."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(canvas_size((image.shape[0], image.shape[1]), self._options), []).append(index)
        batches, batch_size = [], self._options.settings.batch_size
        for group in groups.values():
            num_full = len(group) // batch_size * batch_size
            batches += [group[start : start + batch_size] for start in range(0, num_full, batch_size)]
            batches += [[index] for index in group[num_full:]]
        return batches


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """The config with other settings of inference.

    Raises:
      ValueError: for a setting that does not exist, with the near names, or that cannot work.
    """
    known = [field.name for field in dataclasses.fields(config.inference) if field.name not in _OF_SCORING]
    for name in options:
        if name not in known:
            raise ValueError(f"no predictor option '{name}'{registry.near(name, known)}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    if isinstance(values.get("threshold"), (int, float)):
        values["threshold"] = (values["threshold"],)
    changed = dataclasses.replace(config, inference=dataclasses.replace(config.inference, **values))
    with value_errors():
        validate(changed)
    return changed


@contextlib.contextmanager
def value_errors() -> Iterator[None]:
    """A setting that cannot work is an argument of the caller's here, not a line of a config."""
    try:
        yield
    except UserError as error:
        raise ValueError(str(error)) from None
