"""Parameters of the fully connected CRF, their values in papers and tools, and its unary term."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from deeplab_jax.registry import near

KernelWeight = Any  # a number for all classes, one per class, or a matrix from class to class


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CRFParams:
    """Two Gaussian kernels over pairs of pixels, and the cost of assigning them different classes.

        k(i, j) = pos_w exp(-|p_i - p_j|^2 / 2 pos_xy_std^2)
                + bi_w exp(-|p_i - p_j|^2 / 2 bi_xy_std^2 - |I_i - I_j|^2 / 2 bi_rgb_std^2)

    All but the normalization may be arrays, also learned ones; changing a value does not recompile.

    Attributes:
      pos_w: weight of the smoothness kernel, w2 in DeepLab's papers; also per class, [c], or [c, c] from class (second
        axis) to class (first axis).
      pos_xy_std: its standard deviation, in pixels (sigma_gamma).
      bi_w: weight of the appearance kernel, w1.
      bi_xy_std: its standard deviation in position, in pixels (sigma_alpha).
      bi_rgb_std: its standard deviation in colour, of 255 grey levels (sigma_beta).
      compatibility: [c, c], the cost of class (first axis) next to class (second axis); None: the Potts model, in which
        all pairs of different classes cost the same.
      normalization: 'symmetric' (pydensecrf) or 'after' (the DeepLab authors' tool, CRF-as-RNN); see
        `permutohedral.normalize`.

    Source: Kraehenbuehl and Koltun 2011, eq. 3; DeepLab v2 (1606.00915), eq. 3.

    Example:
      >>> import deeplab_jax as dl
      >>> dl.ops.CRFParams(pos_w=3.0, pos_xy_std=3.0, bi_w=4.0, bi_xy_std=50.0, bi_rgb_std=3.0).normalization
      'symmetric'
    """

    pos_w: KernelWeight
    pos_xy_std: Any
    bi_w: KernelWeight
    bi_xy_std: Any
    bi_rgb_std: Any
    compatibility: Float[Array, "c c"] | None = None
    normalization: str = dataclasses.field(default="symmetric", metadata={"static": True})


class CRFPreset(NamedTuple):
    """Published parameters and number of iterations."""

    params: CRFParams
    num_iterations: int


PRESETS: Mapping[str, CRFPreset] = {
    # DeepLab v1: refine_pascal's defaults and its fourth version.
    "v1": CRFPreset(CRFParams(3.0, 3.0, 10.0, 60.0, 20.0, normalization="after"), 10),
    "v1_v4": CRFPreset(CRFParams(3.0, 3.0, 5.0, 70.0, 5.0, normalization="after"), 10),
    # DeepLab v2: the two published models, and the sample script run_densecrf.sh.
    "v2_vgg16": CRFPreset(CRFParams(2.0, 2.0, 4.0, 65.0, 3.0, normalization="after"), 10),
    "v2_resnet101": CRFPreset(CRFParams(3.0, 1.0, 4.0, 67.0, 3.0, normalization="after"), 10),
    "v2_sample": CRFPreset(CRFParams(3.0, 3.0, 4.0, 49.0, 5.0, normalization="after"), 10),
    # The authors' later wrapper, crf_runner.
    "ccvl": CRFPreset(CRFParams(3.0, 3.0, 5.0, 50.0, 3.0, normalization="after"), 10),
    # deeplab-pytorch, by pydensecrf.
    "kazuto1011": CRFPreset(CRFParams(3.0, 1.0, 4.0, 67.0, 3.0), 10),
    # pydensecrf's README and inference.py.
    "pydensecrf_readme": CRFPreset(CRFParams(3.0, 3.0, 10.0, 80.0, 13.0), 5),
    # CRF-as-RNN in test; in training 5 iterations.
    "crf_as_rnn": CRFPreset(CRFParams(3.0, 3.0, 5.0, 160.0, 3.0, normalization="after"), 10),
}


def crf_preset(name: str) -> CRFPreset:
    """The published preset `name`; ValueError if there is none of that name."""
    if name not in PRESETS:
        raise ValueError(f"no CRF preset '{name}'{near(name, PRESETS)}")
    return PRESETS[name]


def unary_from_logits(logits: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """log p of a network's logits, without clipping."""
    return jax.nn.log_softmax(logits.astype(jnp.float32))


def unary_from_probabilities(
    probabilities: Float[Array, "*b h w c"], *, clip: float = 1e-5
) -> Float[Array, "*b h w c"]:
    """log p, with p at least `clip` (pydensecrf's unary_from_softmax with the opposite sign).

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> print(dl.ops.unary_from_probabilities(jnp.array([[[1.0, 0.0]]])).round(1))
      [[[  0.  -11.5]]]
    """
    return jnp.log(jnp.clip(probabilities.astype(jnp.float32), clip, 1.0))


def unary_from_labels(
    label: Integer[Array, "*b h w"], num_classes: int, *, gt_prob: float = 0.7, ignore_label: int | None = None
) -> Float[Array, "*b h w c"]:
    """log p of hard labels that are correct with probability `gt_prob`; uniform where they are `ignore_label`.

    Raises:
      ValueError: for fewer than two classes, or a probability outside (0, 1).
    """
    if num_classes < 2 or not 0 < gt_prob < 1:
        raise ValueError(
            f"gt_prob={gt_prob}, num_classes={num_classes}: give a number in (0, 1) and two classes or more"
        )
    is_label = label[..., None] == jnp.arange(num_classes, dtype=label.dtype).reshape((1,) * label.ndim + (-1,))
    probability = jnp.where(is_label, gt_prob, (1 - gt_prob) / (num_classes - 1))
    if ignore_label is not None:
        probability = jnp.where(label[..., None] == ignore_label, 1 / num_classes, probability)
    return jnp.log(probability.astype(jnp.float32))


def check_crf_inputs(
    unary: Array,
    image: Array,
    params: CRFParams,
    mask: Array | None,
    num_iterations: int,
    max_vertices: int | None = None,
) -> None:
    """Raises ValueError for invalid inputs, naming the argument and the remedy; values are checked unless traced."""
    if unary.ndim != 4 or image.shape != (*unary.shape[:3], 3):
        raise ValueError(
            f"the image {image.shape[1:]} does not fit the unary {unary.shape[1:]}: give [h, w, 3] and [h, w, classes] "
            "of the same height and width, resizing the logits first"
        )
    if mask is not None and mask.shape != unary.shape[:3]:
        raise ValueError(f"the mask {mask.shape[1:]} does not fit the unary {unary.shape[1:]}: give [h, w]")
    if num_iterations < 0:
        raise ValueError(f"num_iterations={num_iterations}: give 0 or more")
    if max_vertices is not None and max_vertices < 1:
        raise ValueError(f"max_vertices={max_vertices}: give how many vertices the lattice may have, or None")
    num_classes = unary.shape[-1]
    for name, ranks in (("pos_w", (0, 1, 2)), ("bi_w", (0, 1, 2)), ("compatibility", (2,))):
        value = getattr(params, name)
        if value is None:
            continue
        shape = jnp.shape(value)
        if len(shape) not in ranks or set(shape) - {num_classes}:
            allowed = " or ".join(str((num_classes,) * rank) for rank in ranks)
            raise ValueError(f"{name} has shape {shape}: for {num_classes} classes give {allowed}")
    for name in ("pos_xy_std", "bi_xy_std", "bi_rgb_std"):
        value = getattr(params, name)
        if not _is_traced(value) and not (jnp.ndim(value) == 0 and 0 < float(value) < float("inf")):
            raise ValueError(f"{name}={value}: a width is one positive number")
    if not _is_traced(unary) and not _all_finite(unary):
        raise ValueError("the unary has values that are not finite: clip probabilities before their logarithm")
    if not _is_traced(image) and jnp.issubdtype(image.dtype, jnp.floating):
        if not _all_finite(image):
            raise ValueError("the image has values that are not finite: give RGB in [0, 255]")
        highest = _maximum(image)
        if 0 < highest <= 1:
            raise ValueError(f"the image's values end at {highest:.3g}: give RGB in [0, 255], not in [0, 1]")


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _all_finite(values: Array) -> bool:
    return bool(_reduced(values, lambda xp, x: xp.isfinite(x).all()))


def _maximum(values: Array) -> float:
    return float(_reduced(values, lambda xp, x: xp.max(x)))


def _reduced(values: Array, reduce: Callable[[ModuleType, Any], Any]) -> Any:
    """Reduces known values by NumPy, which compiles nothing, or on the accelerator that holds them."""
    if isinstance(values, jax.Array) and next(iter(values.devices())).platform != "cpu":
        with jax.ensure_compile_time_eval():  # even during tracing
            return reduce(jnp, values)
    return reduce(np, np.asarray(values))
