"""A network that has each operation of the large ones and compiles in a second, and its program for export."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.canvas import Canvas, pad_image
from deeplab_jax.export.program import make_program
from deeplab_jax.heads.v3plus import V3PlusHead
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.nn.layers import ConvNorm
from deeplab_jax.ops.pooling import max_pool
from deeplab_jax.types import NORMALIZATIONS, FeatureInfo

NUM_CLASSES = 4
PAD_PIXEL = NORMALIZATIONS["imagenet"].pad_pixel


class SmallBackbone(nn.Module):
    """Strides 2, 4 and 8 by a convolution, a pooling and a depthwise convolution; then an atrous one."""

    padding: str = "tf_same"

    @nn.compact
    def __call__(self, x, *, train):
        x = ConvNorm(8, 3, stride=2, padding=self.padding, activation="relu6", name="stem")(x, train=train)
        low = max_pool(x, 3, stride=2, padding="symmetric")
        x = ConvNorm(0, 3, stride=2, padding=self.padding, activation="hard_swish", name="depthwise")(low, train=train)
        x = ConvNorm(8, 3, rate=4, padding=self.padding, name="atrous")(x, train=train)
        return {"stride4": low, "stride8": x}


@functools.cache
def make_network(align_corners=True, padding="tf_same"):
    """(network, variables with batch statistics that are not those of the start)."""
    info = (FeatureInfo("stride4", 8, 4), FeatureInfo("stride8", 8, 8))
    small = {"aspp_channels": 6, "decoder_channels": 6, "low_level_channels": 3, "num_decoder_convs": 1}
    head = V3PlusHead(NUM_CLASSES, info, align_corners, atrous_rates=(4,), logits_stddev=0.5, **small)
    model = DeepLab(SmallBackbone(padding), head, NORMALIZATIONS["imagenet"], align_corners)
    images = jnp.zeros((1, 33, 33, 3), jnp.uint8)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    rng = np.random.default_rng(0)
    draw = {"params": (0.0, 0.7), "batch_stats": (0.8, 0.1)}
    return model, {
        name: jax.tree.map(lambda leaf, name=name: rng.normal(*draw[name], leaf.shape).astype(np.float32), tree)
        for name, tree in shapes.items()
    }


def program_of(model, variables, outputs=("class_ids", "logits"), canvas=None):
    return make_program(
        model.apply, variables, outputs=outputs, canvas=canvas or Canvas((1, 1), 16), pad_pixel=PAD_PIXEL
    )


def expected_logits(model, variables, images, canvas):
    """What the network itself says of the padded images."""
    height, width = images.shape[1:3]
    size = canvas.around((height, width))
    padded = np.stack([pad_image(image, size, PAD_PIXEL) for image in images])
    return np.asarray(jax.jit(model.apply)(variables, padded))[:, :height, :width]


def patches(rng, shape):
    """RGB images of large patches, on which a network says more than one thing."""
    batch, height, width = shape
    coarse = rng.integers(0, 256, (batch, -(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
