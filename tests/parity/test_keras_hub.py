"""KerasHub's DeepLab v3+, as it saves its weights: the same logits, on sizes that it takes, odd and even in cells."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from both_sides import model_output
from drawn_arrays import drawn_images, drawn_weight

from deeplab_jax.apps.import_weights import import_checkpoint
from deeplab_jax.models.build import build_model
from deeplab_jax.types import UserError

TOLERANCE = 1e-4  # of the logits' deviation: float32, summed in another order through up to 60 layers
MEAN, STD = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])


def _segmenter(monkeypatch, block_type, num_blocks):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras_hub = pytest.importorskip("keras_hub")
    encoder = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=num_blocks,
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=block_type,
    )
    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=encoder,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=[6, 12, 18],
    )
    return keras_hub.models.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=21)


def _draw(network):
    """As `drawn_weight` does in PyTorch's order of axes and names; ends of residual branches small."""
    endings = {"moving_variance": "running_var", "moving_mean": "running_mean", "beta": "bias"}
    last = {"basic_block": "2_bn", "bottleneck_block": "3_bn"}[network.backbone.image_encoder.block_type]
    for variable in network.variables:
        if len(variable.shape) == 4:
            shape = tuple(variable.shape[axis] for axis in (3, 2, 0, 1))
            variable.assign(drawn_weight(variable.path, shape).transpose(2, 3, 1, 0))
        elif variable.path.endswith(("gamma", *endings)):
            name = variable.path + "." + endings.get(variable.path.rpartition("/")[2], "weight")
            variable.assign(drawn_weight(name, tuple(variable.shape), damped=rf".*{last}.*"))


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize(
    ("block_type", "num_blocks", "ours"),
    [("basic_block", [2, 2, 2, 2], "resnet18"), ("bottleneck_block", [3, 4, 6, 3], "resnet50")],
)
@pytest.mark.filterwarnings("ignore")
def test_logits_are_keras_hubs(monkeypatch, tmp_path, block_type, num_blocks, ours):
    network = _segmenter(monkeypatch, block_type, num_blocks)
    _draw(network)
    network.save_weights(tmp_path / "task.weights.h5")
    config, variables = import_checkpoint(str(tmp_path / "task.weights.h5"), layout="")
    assert config.backbone.name == f"resnet.{ours}"
    output = model_output("logits", build_model(config), variables)
    for size in ((96, 160), (64, 128)):
        images = drawn_images("keras_hub", size)
        wanted = network((images - MEAN) / STD, training=False).detach().numpy()
        assert np.abs(output(images) - wanted).max() < TOLERANCE * wanted.std()


def test_an_encoder_of_another_kind_is_named(tmp_path):
    network = "layers/deep_lab_v3_backbone/layers/"
    with h5py.File(tmp_path / "task.weights.h5", "w") as file:
        for name, shape in {
            "layers/conv2d": (1, 1, 8, 5),
            f"{network}conv2d": (1, 1, 8, 4),
            f"{network}spatial_pyramid_pooling/projection/layers/conv2d": (1, 1, 40, 8),
            f"{network}functional/layers/conv2d": (3, 3, 3, 8),
        }.items():
            file[f"{name}/vars/0"] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=r"are 1 convolutions; there are 20: resnet18, .*, of 7x7 first"):
        import_checkpoint(str(tmp_path / "task.weights.h5"), layout="")
