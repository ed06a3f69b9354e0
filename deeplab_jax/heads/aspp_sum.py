"""DeepLab v2's head: parallel atrous branches whose logits are summed (1606.00915, sec. 3.2)."""

from __future__ import annotations

import functools
import operator

import flax.linen as nn
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from deeplab_jax.heads.large_fov import RATES_OUTPUT_STRIDE, connected_layers
from deeplab_jax.nn.layers import AtrousConv
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import scaled_rate
from deeplab_jax.types import FeatureInfo, Features, Logits


class ASPPSumHead(nn.Module):
    """One branch for each rate on the deepest features; the sum of their logits, in float32.

    Attributes:
      rates: of the branches' 3x3 convolutions at output stride 8; they scale inversely with the output stride, so they
        stay constant in image pixels.
      hidden_channels: 0: each branch is one 3x3 classifier (ResNet); otherwise fc6 and fc7 with this many channels,
        ReLU and dropout, and a 1x1 classifier (VGG: 1024).
      dropout: after fc6 and fc7, in training.
      logits_stddev: of the classifiers' initial kernels.

    Raises:
      ValueError: when a rate is not an integer at the backbone's output stride.

    Source: fig. 7 and sec. 4.1; initial values as in the authors' networks.
    """

    num_classes: int
    feature_info: tuple[FeatureInfo, ...]
    align_corners: bool
    options: LayerOptions = LayerOptions()
    rates: tuple[int, ...] = (6, 12, 18, 24)
    hidden_channels: int = 0
    dropout: float = 0.5
    logits_stddev: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scaled_rates()  # rejects impossible rates when the head is built

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Logits:
        x = features[self.feature_info[-1].name]
        branch = self._deep_branch if self.hidden_channels else self._branch
        branches = [branch(x, k, rate, train=train) for k, rate in enumerate(self._scaled_rates(), start=1)]
        return functools.reduce(operator.add, branches)

    def _branch(self, x: Float[Array, "b h w c"], branch_id: int, rate: int, *, train: bool) -> Logits:
        return self._classifier(f"branch{branch_id}", kernel_size=3, rate=rate)(x)

    def _deep_branch(self, x: Float[Array, "b h w c"], branch_id: int, rate: int, *, train: bool) -> Logits:
        x = connected_layers(
            x,
            (f"fc6_{branch_id}", f"fc7_{branch_id}"),
            kernel_size=3,
            rate=rate,
            channels=self.hidden_channels,
            dropout=self.dropout,
            options=self.options,
            train=train,
        )
        return self._classifier(f"fc8_{branch_id}")(x)

    def _classifier(self, name: str, kernel_size: int = 1, rate: int = 1) -> AtrousConv:
        init = normal(self.logits_stddev)
        return AtrousConv(self.num_classes, kernel_size, rate=rate, use_bias=True, kernel_init=init, name=name)

    def _scaled_rates(self) -> list[int]:
        stride = self.feature_info[-1].stride
        return [scaled_rate(rate, given_at=RATES_OUTPUT_STRIDE, output_stride=stride) for rate in self.rates]


# Spelled as configs spell them. For ResNet: sec. 4.1.2's ASPP, and the single branch it is compared with.
aspp_sum = ASPPSumHead
large_fov_linear = functools.partial(ASPPSumHead, rates=(12,))
# For VGG: small and large rates.
aspp_s = functools.partial(ASPPSumHead, rates=(2, 4, 8, 12), hidden_channels=1024)
aspp_l = functools.partial(ASPPSumHead, rates=(6, 12, 18, 24), hidden_channels=1024)
