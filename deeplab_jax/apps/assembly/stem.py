"""Loads RGB weights into a network with other input channels by repeating its stem's kernels over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Float

from deeplab_jax.config import PretrainedConfig
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.types import Normalization, UserError, Variables

Load = Callable[[Variables], tuple[dict[str, Any], Any]]  # variables -> (variables filled from a file, report)
_Path = tuple[str, ...]


def load_for_channels(load: Load, variables: Variables, model: nn.Module, settings: PretrainedConfig) -> Any:
    """Like `load(variables)`; if `settings.stem` is 'repeat', the file may be for RGB whatever the images are.

    Raises:
      UserError: if the stem has other channels than the file and `settings.stem` does not allow it.
    """
    stem = stem_kernels(model) if isinstance(model, DeepLab) else {}
    if not stem:
        return load(variables)
    if settings.stem != "repeat":
        if settings.scope == "fitting" or settings.layout == "deeplab_jax":
            return load(variables)
        raise UserError(
            f"config.model.pretrained.scope={settings.scope!r}: the images have {next(iter(stem.values()))} channels, "
            "the file's weights are for 3; set config.model.pretrained.stem='repeat', which spreads the first kernel "
            "over them, or scope='fitting', which leaves it at random"
        )
    flat = traverse_util.flatten_dict(variables)
    rgb = {path: np.zeros((*flat[path].shape[:-2], 3, flat[path].shape[-1]), np.float32) for path in stem}
    loaded, report = load(traverse_util.unflatten_dict(flat | rgb))
    filled = traverse_util.flatten_dict(loaded)
    spread = {path: repeat_channels(np.asarray(filled[path]), channels) for path, channels in stem.items()}
    return traverse_util.unflatten_dict(filled | spread), report


def stem_kernels(model: DeepLab) -> Mapping[_Path, int]:
    """Path -> number of channels, for the kernels that read the images; empty for RGB."""
    channels = len(model.normalization.mean)
    if channels == 3:
        return {}
    own, rgb = _shapes(model, channels), _shapes(model, 3)
    return {path: channels for path, shape in own.items() if shape != rgb[path]}


def _shapes(model: DeepLab, channels: int) -> dict[_Path, tuple[int, ...]]:
    reading = model.clone(normalization=Normalization((0.0,) * channels, (1.0,) * channels))
    images = jnp.zeros((1, 65, 65, channels), jnp.float32)
    variables = jax.eval_shape(lambda: reading.init(jax.random.key(0), images, train=False))
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables).items()}


def repeat_channels(kernel: Float[np.ndarray, "h w 3 c"], channels: int) -> Float[np.ndarray, "h w bands c"]:
    """Adapts an RGB kernel to other channels while keeping the scale of its activations.

    One channel gets the sum of the three; more get red, green, blue, red, ..., times 3 / channels.

    Source: timm, models/_manipulate.adapt_input_conv
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % 3] * np.float32(3 / channels)
