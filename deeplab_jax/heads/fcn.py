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
_FC6_STRIDE = 32  # the original output stride, at which fc6 is not dilated


class FCNHead(nn.Module):
    """fc6, fc7 and logits on the deepest features, upsampled stride by stride and added to the logits of earlier maps.

        y_s = resize(y_2s, size of map s) + score_s(scale_s * map s)                 for s in skip_strides

    The authors upsample by transposed convolutions initialised to bilinear interpolation (and unchanged in their
    published networks), pad the image by 100 pixels, leave fc6 unpadded and crop the maps to match. Here fc6 is padded,
    and maps are resized to the earlier map. Away from the borders both agree without `align_corners`, which suits 2x2
    pooling; DeepLab's 3x3 pooling, whose grids share corners, needs `align_corners`.

    Attributes:
      skip_strides: from coarse to fine, below the output stride.
      skip_scales: fixed factor on each of these maps, for training all skips at once; empty: 1.
      channels: of fc6 (7x7, dilated to the same extent at smaller output strides) and fc7.
      dropout: after both, in training.
      logits_stddev: of the classifiers' initial kernels; 0, as in the authors' networks.

    Raises:
      ValueError: when the backbone has no map for a skip, or the number of scales differs from that of skips.

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
        self._skips()  # rejects missing feature maps when the head is built

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
        """The skipped maps and their factors."""
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
