"""A checkpoint file of TF deeplab's, written from the format's specification, becomes a network of ours."""

from __future__ import annotations

import numpy as np
import pytest
import tf_names as tf
from tf_bundles import write_bundle

from deeplab_jax.apps.import_weights import import_checkpoint
from deeplab_jax.types import UserError


@pytest.fixture
def checkpoint(tmp_path, rng):
    """The half MobileNetV2 with image pooling and a 1x1, as training leaves it."""
    shapes = tf.with_training(tf.mobilenet_v2(0.5) | tf.head(160, 5, num_rates=0))
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {name: np.abs(array) for name, array in arrays.items() if name.endswith("moving_variance")}
    arrays["global_step"] = np.array(1000)
    return write_bundle(tmp_path / "model.ckpt-1000", arrays, num_shards=1), arrays


@pytest.mark.parametrize("layout_name", ["", "tf_deeplab"])
def test_every_variable_arrives(layout_name, checkpoint):
    path, arrays = checkpoint
    config, variables = import_checkpoint(str(path), layout=layout_name)
    assert (config.num_classes, config.output_stride, config.align_corners) == (5, 16, True)
    assert (config.backbone.name, config.head.name) == ("mobilenet_v2.mobilenet_v2", "aspp.aspp")
    params, stats = variables["params"], variables["batch_stats"]
    scope = "MobilenetV2/expanded_conv_3"
    block = params["backbone"]["block3"]
    for ours, theirs in (
        (params["backbone"]["stem"]["conv"]["kernel"], arrays["MobilenetV2/Conv/weights"]),
        (
            block["depthwise"]["conv"]["depthwise_kernel"][:, :, 0],
            arrays[f"{scope}/depthwise/depthwise_weights"][..., 0],
        ),
        (block["expand"]["norm"]["scale"], arrays[f"{scope}/expand/BatchNorm/gamma"]),
        (stats["backbone"]["block3"]["project"]["norm"]["var"], arrays[f"{scope}/project/BatchNorm/moving_variance"]),
        (params["head"]["aspp"]["projection"]["conv"]["kernel"], arrays["concat_projection/weights"]),
        (params["head"]["logits"]["bias"], arrays["logits/semantic/biases"]),
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_wrong_layout_is_told_the_right_one(checkpoint):
    path, _ = checkpoint
    with pytest.raises(UserError, match=r"not of layout 'tflite' .*; its names are those of layout tf_deeplab"):
        import_checkpoint(str(path), layout="tflite")
