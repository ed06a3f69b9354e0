"""Fully convolutional networks with skips: FCN-32s, -16s and -8s (1411.4038, sec. 4.2)."""

from __future__ import annotations

import functools

import flax.linen as nn
from jax.nn.initializers import normal

from deeplab_jax.heads.aspp import logits_layer
from deeplab_jax.heads.large_fov import connected_layers
from deeplab_jax.nn.layers import AtrousConv
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import scaled_rate
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo, Features, Logits, find_feature

_FC6_SIZE = 7
_FC6_STRIDE = 32  # the output stride at which fc6 has no holes, the original's


class FCNHead(nn.Module):
    """fc6, fc7 and logits on the deepest features, then, stride by stride, upsampled and added to earlier ones'.

        y_s = resize(y_2s, size of map s) + score_s(scale_s * map s)                 for s in skip_strides

    The authors upsample by transposed convolutions that start as bilinear interpolation (in their published
    networks they stay it), pad the image by 100 pixels, leave fc6 unpadded and crop the maps to one another. Here
    fc6 is padded, and interpolation meets the size of the earlier map. Away from the borders both are the same
    without `align_corners`, which suits 2x2 poolings; DeepLab's 3x3 poolings, whose grids share corners, want it.

    Attributes:
      feature_info: of the backbone, whose last maps of `skip_strides` are read.
      skip_strides: from coarse to fine, below the output stride.
      skip_scales: fixed factor on each of these maps, for training all at once; empty: 1.
      channels: of fc6 (7x7, or as wide at smaller output strides) and fc7.
      dropout: behind both, in training.
      logits_stddev: of the initial kernels that end in classes; 0, as the authors have it.

    Raises:
      ValueError: for skips that the backbone has no map for, or of another number than their scales.

    Source: sec. 4.1 to 4.3; the scales from the authors' network trained at once (1605.06211).
    """

    num_classes: int
    feature_info: tuple[FeatureInfo, ...]
    align_corners: bool
    options: LayerOptions = LayerOptions()
    skip_strides: tuple[int, ...] = ()
    skip_scales: tuple[float, ...] = ()
    channels: int = 4096
    dropout: float = 0.5
    logits_stddev: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._skips()  # a head that has nothing to read is refused when it is built

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Logits:
        deepest = self.feature_info[-1]
        x = connected_layers(
            features[deepest.name],
            ("fc6", "fc7"),
            kernel_size=_FC6_SIZE,
            rate=scaled_rate(1, given_at=_FC6_STRIDE, output_stride=deepest.stride),
            channels=self.channels,
            dropout=self.dropout,
            options=self.options,
            train=train,
        )
        logits = logits_layer(self.num_classes, self.logits_stddev)(x)
        for info, scale in self._skips():
            skip = features[info.name]
            score = AtrousConv(
                self.num_classes,
                use_bias=True,
                kernel_init=normal(self.logits_stddev),
                name=f"score_{info.name}",
            )
            size = (skip.shape[1], skip.shape[2])
            logits = resize_bilinear(logits, size, align_corners=self.align_corners) + score(scale * skip)
        return logits

    def _skips(self) -> list[tuple[FeatureInfo, float]]:
        """The maps that are added, and their factors."""
        earlier = self.feature_info[:-1]
        infos = [find_feature(earlier, f"stride{stride}") for stride in self.skip_strides]
        scales = self.skip_scales or (1.0,) * len(infos)
        if len(scales) != len(infos):
            raise ValueError(f"skip_scales={scales}: give one for each of skip_strides={self.skip_strides}")
        return list(zip(infos, scales, strict=True))


# Spelled as configs spell them.
fcn32s = FCNHead
fcn16s = functools.partial(FCNHead, skip_strides=(16,))
fcn8s = functools.partial(FCNHead, skip_strides=(16, 8))
fcn8s_at_once = functools.partial(fcn8s, skip_scales=(0.01, 0.0001))
