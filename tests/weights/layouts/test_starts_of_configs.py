"""The starts that the papers' configs name: their backbones take those files, and with nothing else changed."""

from __future__ import annotations

import importlib

import pytest
import tf_names

from deeplab_jax.apps.import_weights import check_agreement
from deeplab_jax.weights.layouts import tf_deeplab, torchvision


def _torchvision_vgg16():
    """features.N counts convolutions, ReLUs and poolings; the classifier is three layers of its own."""
    shapes, layer_id, channels_in = {}, 0, 3
    for stage, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(stage):
            shapes |= {f"features.{layer_id}.weight": (channels, channels_in, 3, 3)}
            shapes |= {f"features.{layer_id}.bias": (channels,)}
            layer_id, channels_in = layer_id + 2, channels
        layer_id += 1
    for layer_id, size in {0: (4096, 25_088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        shapes |= {f"classifier.{layer_id}.weight": size, f"classifier.{layer_id}.bias": size[:1]}
    return shapes


VGG16 = _torchvision_vgg16()
STARTS = {
    "v1_voc_large_fov": (torchvision, VGG16),
    "v1_voc_7x7": (torchvision, VGG16),
    "v2_voc_vgg16_aspp_l": (torchvision, VGG16),
    "fcn8s_voc": (torchvision, VGG16),
    "v3_voc_resnet50_block7": (tf_deeplab, tf_names.resnet_v1(50, beta=False)),
    "v3_voc_resnet101_block7": (tf_deeplab, tf_names.resnet_v1(101, beta=False)),
    "v3_voc_resnet101": (tf_deeplab, tf_names.resnet_v1(101, beta=True)),
    "v3plus_voc": (tf_deeplab, tf_names.resnet_v1(101, beta=True)),
    "v3_voc_xception65": (tf_deeplab, tf_names.xception(65)),
    "v3plus_voc_xception65_separable": (tf_deeplab, tf_names.xception(65)),
    "v3_voc_mobilenet_v2": (tf_deeplab, tf_names.mobilenet_v2(1.0)),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_config_agrees_with_the_start_that_it_names(name):
    layout, shapes = STARTS[name]
    config = importlib.import_module(f"configs.{name}").get_config()
    check_agreement(config.model, layout.recognize(shapes).model, "backbone")
