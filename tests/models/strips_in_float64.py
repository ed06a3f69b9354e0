"""Networks on strips of an image against one device, in float64: what differs is another result, not another rounding.

python strips_in_float64.py NETWORK    prints the largest difference for each number of devices as JSON
"""

from __future__ import annotations

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.config import BatchNormConfig, ModelConfig, PartConfig

_NARROW = {"aspp_channels": 4, "decoder_channels": 4, "low_level_channels": 4}
_V3PLUS = PartConfig("v3plus.v3plus", _NARROW)
_ONE_UNIT = {"num_units": (1, 1, 1, 1), "multi_grid": (1,), "strided_unit": "first", "width": 0.0625}

NETWORKS = {  # name -> (backbone, head, size of the images, how many)
    "resnet50": (PartConfig("resnet.resnet50", {"width": 0.0625}), _V3PLUS, (129, 65), 2),
    "mobilenet_v2": (
        PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.1}),
        PartConfig("v3plus.v3plus", {**_NARROW, "separable": True}),
        (129, 65),
        2,
    ),
    "mobilenet_v3": (
        PartConfig("mobilenet_v3.mobilenet_v3_large"),
        PartConfig("lr_aspp.lr_aspp", {"channels": 4}),
        (129, 65),
        2,
    ),
    # A whole frame of Cityscapes has 65 rows of features: 4 strips of 17, the last of 14, and rates of 6, 12 and 18.
    "whole_frame": (PartConfig("resnet.ResNet", _ONE_UNIT), _V3PLUS, (1025, 2049), 1),
}


def largest_difference(got, want):
    """Of logits, gradients and statistics, each as a share of the largest among them."""
    shares = []
    for one, other in zip(got, want, strict=True):
        assert {leaf.dtype for leaf in jax.tree.leaves(other)} == {np.dtype(np.float64)}
        largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(other))
        differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one, other)
        shares.append(max(jax.tree.leaves(differences)) / largest)
    return max(shares)


def main(name):
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64  # of parameters, statistics and logits, whatever the options; ahead of the networks

    from test_space import NUM_CLASSES, results

    from deeplab_jax.models.build import build_model

    backbone, head, size, batch_size = NETWORKS[name]
    norm = BatchNormConfig(decay=0.9)
    config = ModelConfig(backbone, head, num_classes=NUM_CLASSES, batch_norm=norm, compute_dtype="float64")
    model = build_model(config)
    want = results(model, 1, size, batch_size)
    found = {n: largest_difference(results(model, n, size, batch_size), want) for n in (2, 4)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
