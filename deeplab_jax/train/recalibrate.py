"""Restores batch norm's statistics if a weight file has folded them into scale and bias.

A folded network is correct in evaluation, but its stored statistics are placeholders (0 and 1): in training the first
batch would be normalised by its real statistics, and the function would jump. Here the statistics are measured, and
scale and bias are set so that the evaluated function does not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Num

from deeplab_jax.types import MOMENTS, ApplyFn, Variables

Images = Num[Array | np.ndarray, "b h w bands"]
_Path = tuple[str, ...]


def calibrate_batch_norm(
    apply_fn: ApplyFn, variables: Variables, batches: Iterable[Images], *, part: str = "backbone"
) -> dict[str, Any]:
    """Re-estimates the statistics of each batch norm under `part`; the evaluated function is unchanged.

        mean <- m,   var <- v,   scale' = scale √((v + ε) / (var + ε)),
        bias' = bias + scale (m - mean) / √(var + ε)

    where m and v are the mean and variance of the layer's input over the batches.

    Args:
      apply_fn: `module.apply`; its batch norms sow 'mean', 'mean_square' and 'epsilon' into the collection
        'bn_moments' if it is mutable.
      variables: 'params' and 'batch_stats'; batch norms are modules with 'mean' and 'var'.
      batches: at least one image batch, all of one size.
      part: top-level module whose batch norms are recalibrated.

    Raises:
      ValueError: if there is no batch, or a batch norm sowed nothing.
    """
    moments = _mean_moments(apply_fn, variables, batches)
    params = traverse_util.flatten_dict(jax.device_get(variables["params"]))
    stats = traverse_util.flatten_dict(jax.device_get(variables["batch_stats"]))
    layers = sorted(path[:-1] for path in stats if path[-1] == "mean" and path[0] == part)
    for layer in layers:
        if (*layer, "mean") not in moments:
            raise ValueError(f"{'/'.join(layer)} sowed no moments into '{MOMENTS}'")
        _calibrate(layer, params, stats, moments)
    unflatten = traverse_util.unflatten_dict
    return {**variables, "params": unflatten(params), "batch_stats": unflatten(stats)}


def _mean_moments(apply_fn: ApplyFn, variables: Variables, batches: Iterable[Images]) -> dict[_Path, np.ndarray]:
    """What each layer sowed, averaged over the batches in float64."""

    @jax.jit
    def moments_of(variables: Variables, image: Images) -> Mapping[str, Any]:
        return apply_fn(variables, image, train=False, mutable=[MOMENTS])[1][MOMENTS]

    sums: dict[_Path, np.ndarray] = {}
    num_batches = 0
    for image in batches:
        sown = traverse_util.flatten_dict(jax.device_get(moments_of(variables, image)))
        for path, values in sown.items():
            # A module called twice sows twice; its statistics cover both inputs.
            sums[path] = sums.get(path, np.float64(0)) + np.mean(np.asarray(values, np.float64), axis=0)
        num_batches += 1
    if not num_batches:
        raise ValueError("calibration needs at least one batch")
    return {path: np.asarray(value / num_batches) for path, value in sums.items()}


def _calibrate(
    layer: _Path, params: dict[_Path, Any], stats: dict[_Path, Any], moments: Mapping[_Path, np.ndarray]
) -> None:
    old_mean, old_var = stats[*layer, "mean"], stats[*layer, "var"]
    epsilon, mean = moments[*layer, "epsilon"], moments[*layer, "mean"]
    var = np.maximum(moments[*layer, "mean_square"] - mean**2, 0.0)
    scale, bias = params[*layer, "scale"], params[*layer, "bias"]
    slope = scale / np.sqrt(old_var + epsilon)
    new = {"scale": slope * np.sqrt(var + epsilon), "bias": bias + slope * (mean - old_mean), "mean": mean, "var": var}
    for name, value in new.items():
        (params if name in ("scale", "bias") else stats)[*layer, name] = np.asarray(value, np.float32)
