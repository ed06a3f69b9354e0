"""CRF-as-RNN: mean-field inference as a network's last layer, trained with the rest (1502.03240)."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp

from deeplab_jax.ops.crf.mean_field import mean_field_batch
from deeplab_jax.ops.crf.parameters import CRFParams
from deeplab_jax.types import Image, Logits

_SMALLEST = 1e-12  # added to marginals: keeps the logarithm and its gradient finite


class CRFRNN(nn.Module):
    """Log marginals of a fully connected CRF whose unary term is the network's logits.

    Learns a weight of each kernel for each class ('spatial_weights', 'bilateral_weights') and the cost of each pair of
    classes ('compatibility'); the kernel widths are fixed. Initialised to DenseCRF: equal weights for all classes, and
    the Potts model.

    Attributes:
      num_classes: logits of each pixel; 1: that of the object in a binary task, beside which the background's is 0. The
        CRF then has two classes, and the result is the log odds of the object.
      spatial_weight, bilateral_weight: initial weights of the smoothness and the appearance kernel.
      spatial_std, bilateral_std, color_std: theta_gamma, theta_alpha (pixels) and theta_beta (grey levels).
      num_iterations, num_train_iterations: of mean field; fewer in training, against vanishing gradients.
      capacity: lattice vertices per pixel to allocate memory for. A simplex has 6, so more are never needed; photos
        take 0.1 to 3. If an image needs more, its logits are NaN: training skips it, evaluation rejects it.

    Source: sec. 5 and 7; the initial weights of the authors' networks.
    """

    num_classes: int
    spatial_weight: float = 3.0
    bilateral_weight: float = 5.0
    spatial_std: float = 3.0
    bilateral_std: float = 160.0
    color_std: float = 3.0
    num_iterations: int = 10
    num_train_iterations: int = 5
    capacity: float = 6.0

    @nn.compact
    def __call__(self, logits: Logits, images: Image, *, train: bool) -> Logits:
        is_binary = self.num_classes == 1
        num_classes = 2 if is_binary else self.num_classes
        per_class, per_pair = (num_classes,), (num_classes, num_classes)
        params = CRFParams(
            pos_w=self.param("spatial_weights", nn.initializers.constant(self.spatial_weight), per_class),
            pos_xy_std=self.spatial_std,
            bi_w=self.param("bilateral_weights", nn.initializers.constant(self.bilateral_weight), per_class),
            bi_xy_std=self.bilateral_std,
            bi_rgb_std=self.color_std,
            compatibility=self.param("compatibility", lambda _, shape: 1.0 - jnp.eye(*shape), per_pair),
            normalization="after",
        )
        if self.is_initializing():
            return logits  # the parameters exist now; there is no need to compile a lattice for shapes only
        marginals = mean_field_batch(
            jnp.concatenate([jnp.zeros_like(logits), logits], -1) if is_binary else logits,
            images.astype(jnp.float32),
            params,
            num_iterations=self.num_train_iterations if train else self.num_iterations,
            max_vertices=math.ceil(self.capacity * (images.shape[1] * images.shape[2] + 1)),
        )
        refined = jnp.log(marginals + _SMALLEST)
        return refined[..., 1:] - refined[..., :1] if is_binary else refined


crf_rnn = CRFRNN  # spelled as configs spell it
