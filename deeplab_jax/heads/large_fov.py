"""DeepLab v1's heads: VGG's fully connected layers as atrous convolutions, and multi-scale branches (1412.7062)."""

from __future__ import annotations

import functools

import flax.linen as nn
from jax.nn.initializers import Initializer, normal
from jaxtyping import Array, Float

from deeplab_jax.heads.aspp import logits_layer
from deeplab_jax.nn.layers import AtrousConv, he_normal
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import scaled_rate
from deeplab_jax.ops.pooling import average_pool
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo, Features, Logits

RATES_OUTPUT_STRIDE = 8  # the output stride for which rates are given, as in the papers


class LargeFOVHead(nn.Module):
    """fc6, fc7 and logits on the deepest features; no batch norm.

        logits = fc8(fc7(fc6(mean3x3(deepest)))) + sum over earlier maps of their branch, if `multi_scale`

    The paper concatenates the branches to fc7's output (640 more channels) and classifies once; since the classifier is
    linear, this equals a sum of separate classifiers, as in the authors' networks.

    Attributes:
      feature_info: of the backbone; `multi_scale` reads all its maps, otherwise only the deepest.
      rate: of fc6 at output stride 8; it scales inversely with the output stride, so it stays constant in image pixels.
      channels: of fc6 and fc7.
      average_pool: a 3x3 mean at stride 1 before fc6.
      dropout: after fc6 and fc7 and both convolutions of a branch, in training.
      logits_stddev: of the classifiers' initial kernels.
      multi_scale: a branch (3x3, 1x1, classifier) for each map before the deepest, including the image.
      branch_channels: of a branch's convolutions.
      branch_stddev: of their initial kernels; small, so the branches hardly count at first.
      dense_evaluation: True: in evaluation each branch keeps the stride of its map, and logits are added on the finest
        grid, as in the authors' test networks; False: at the stride of the deepest map, as in training.

    Raises:
      ValueError: when the rate is not an integer at the backbone's output stride.

    Source: sec. 3.1, 3.2, 4.3 and table 2; pooling, padding and initial values as in the authors' networks.
    """

    num_classes: int
    feature_info: tuple[FeatureInfo, ...]
    align_corners: bool
    options: LayerOptions = LayerOptions()
    kernel_size: int = 3
    rate: int = 12
    channels: int = 1024
    average_pool: bool = True
    dropout: float = 0.5
    logits_stddev: float = 0.01
    multi_scale: bool = False
    branch_channels: int = 128
    branch_stddev: float = 0.001
    dense_evaluation: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._rate()  # rejects an impossible rate when the head is built

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Logits:
        *earlier, deepest = self.feature_info
        x = features[deepest.name]
        if self.average_pool:
            x = average_pool(x, (3, 3), padding="symmetric")
        x = connected_layers(
            x,
            ("fc6", "fc7"),
            kernel_size=self.kernel_size,
            rate=self._rate(),
            channels=self.channels,
            dropout=self.dropout,
            options=self.options,
            train=train,
        )
        logits = logits_layer(self.num_classes, self.logits_stddev)(x)
        for branch_id, info in enumerate(earlier if self.multi_scale else ()):
            strided = train or not self.dense_evaluation
            stride = deepest.stride // info.stride if strided else 1
            logits = self._add(logits, self._branch(features[info.name], branch_id, stride, train=train))
        return logits

    def _rate(self) -> int:
        return scaled_rate(self.rate, given_at=RATES_OUTPUT_STRIDE, output_stride=self.feature_info[-1].stride)

    def _branch(self, x: Float[Array, "b fh fw c"], branch_id: int, stride: int, *, train: bool) -> Logits:
        x = connected_layers(
            x,
            (f"branch{branch_id}_conv", f"branch{branch_id}_fc"),
            kernel_size=3,
            stride=stride,
            channels=self.branch_channels,
            dropout=self.dropout,
            options=self.options,
            train=train,
            kernel_init=normal(self.branch_stddev),
        )
        classifier = AtrousConv(
            self.num_classes,
            use_bias=True,
            kernel_init=normal(self.logits_stddev),
            name=f"branch{branch_id}_logits",
        )
        return classifier(x)

    def _add(
        self, first: Float[Array, "b h1 w1 classes"], second: Float[Array, "b h2 w2 classes"]
    ) -> Float[Array, "b h3 w3 classes"]:
        """The sum on the finer of the two grids."""
        size = max(first.shape[1], second.shape[1]), max(first.shape[2], second.shape[2])
        same_size = [resize_bilinear(logits, size, align_corners=self.align_corners) for logits in (first, second)]
        return same_size[0] + same_size[1]


def connected_layers(
    x: Float[Array, "b h w c"],
    names: tuple[str, str],
    *,
    kernel_size: int,
    channels: int,
    dropout: float,
    options: LayerOptions,
    train: bool,
    stride: int = 1,
    rate: int = 1,
    kernel_init: Initializer = he_normal,
) -> Float[Array, "b h2 w2 d"]:
    """A classifier's two fully connected layers as convolutions: k x k, then 1x1, each with ReLU and dropout.

    Call it inside a compact method; its module then owns the layers called `names`.
    """
    first = AtrousConv(
        channels,
        kernel_size,
        stride=stride,
        rate=rate,
        padding="symmetric",
        use_bias=True,
        kernel_init=kernel_init,
        dtype=options.dtype,
        name=names[0],
    )
    second = AtrousConv(channels, use_bias=True, kernel_init=kernel_init, dtype=options.dtype, name=names[1])
    for layer in (first, second):
        x = nn.Dropout(dropout, deterministic=not train)(nn.relu(layer(x)))
    return x


# Spelled as configs spell them: table 2's rows 'LargeFOV', '7x7', the plain one, and '4x4' with the larger FOV.
large_fov = LargeFOVHead
msc_large_fov = functools.partial(LargeFOVHead, multi_scale=True)
deeplab_7x7 = functools.partial(LargeFOVHead, kernel_size=7, rate=4, channels=4096, average_pool=False)
deeplab_4x4 = functools.partial(LargeFOVHead, kernel_size=4, rate=4, channels=4096, average_pool=False)
deeplab_4x4_large_fov = functools.partial(deeplab_4x4, rate=8)
msc_deeplab_4x4 = functools.partial(deeplab_4x4, multi_scale=True)
