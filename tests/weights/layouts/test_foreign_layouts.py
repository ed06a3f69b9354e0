"""Layouts of systems that need not be installed: each name of a source has its place, and no other layout takes it."""

from __future__ import annotations

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tf_names as tf
import torch_names as torch

from deeplab_jax import registry
from deeplab_jax.apps.import_weights import model_config
from deeplab_jax.models.build import build_model
from deeplab_jax.weights.rules import place, reorder

LAYOUTS = "weights.layouts"
_IMAGENET_V2 = (
    tf.mobilenet_v2(1.4) | tf.last_conv(448) | tf.classifier("MobilenetV2/Logits", 1792, name="Conv2d_1c_1x1")
)
# Name of the case -> layout, names and shapes of its file, and what its model must say.
NETWORKS = {
    "tf xception_65 v3+": (
        "tf_deeplab",
        tf.with_training(tf.xception(65) | tf.head(2048, 21, low_level=256)),
        {"output_stride": 16, "normalization": "minus_one_to_one", "head.args.atrous_rates": (6, 12, 18)},
    ),
    "tf xception_71 dpc v3+": (
        "tf_deeplab",
        tf.with_training(tf.xception(71) | tf.dpc_head(2048, 256, 19)),
        {"head.name": "dpc.dpc", "num_classes": 19},
    ),
    "tf resnet_v1_101_beta v3+": (
        "tf_deeplab",
        tf.resnet_v1(101, beta=True) | tf.head(2048, 19, low_level=256),
        {"normalization": "minus_one_to_one", "backbone.args.low_level_tap": "pre_add", "head.args.separable": True},
    ),
    "tf resnet_v1_50 v3, dense": (
        "tf_deeplab",
        tf.resnet_v1(50, beta=False) | tf.head(2048, 21, separable=False),
        {"normalization": "slim_mean", "backbone.args.strided_unit": "last", "head.args.separable": False},
    ),
    "tf mobilenet_v2 v3": (
        "tf_deeplab",
        tf.mobilenet_v2(1.0) | tf.head(320, 21, num_rates=0),
        {"backbone.args.width": 1.0, "head.args.atrous_rates": ()},
    ),
    "tf half mobilenet_v2 v3+, dense": (
        "tf_deeplab",
        tf.mobilenet_v2(0.5) | tf.head(160, 21, low_level=72, separable=False),
        {"backbone.args.width": 0.5, "backbone.args.divisor": 1, "backbone.args.low_level_tap": "depthwise"},
    ),
    "tf mobilenet_v3_large_seg lr-aspp": (
        "tf_deeplab",
        tf.mobilenet_v3("large_seg") | tf.lr_aspp(480, 120, 19),
        {"output_stride": 32, "backbone.args.tail": "seg", "head.args.gate": "hard_sigmoid"},
    ),
    "tf mobilenet_v3_small_seg lr-aspp": (
        "tf_deeplab",
        tf.mobilenet_v3("small_seg") | tf.lr_aspp(288, 88, 19),
        {"backbone.args.low_level_tap": "depthwise", "head.args.pooling_strides": (4, 5)},
    ),
    "tflite half mobilenet_v2 v3": ("tflite", tf.tflite(0.5, 21), {"output_stride": 8, "backbone.args.divisor": 1}),
    "bonlime xception": (
        "bonlime",
        tf.bonlime_xception(21),
        {"output_stride": 16, "align_corners": True, "backbone.args.stem_padding": "tf_same"},
    ),
    "bonlime mobilenetv2": ("bonlime", tf.bonlime_mobilenet_v2(5), {"output_stride": 8, "head.args.atrous_rates": ()}),
    "mmseg v3 r101-d8": (
        "mmseg",
        torch.mmseg(101, 19, plus=False),
        {"output_stride": 8, "backbone.args.stem": "v1c", "head.args.projection_kernel_size": 3},
    ),
    "mmseg v3+ r50-d8": ("mmseg", torch.mmseg(50, 150, plus=True), {"auxiliary.args.feature": "penultimate"}),
    "mmseg v3+ r50b-d8, no auxiliary": (
        "mmseg",
        torch.mmseg(50, 19, plus=True, stem="plain", auxiliary=False),
        {"backbone.args.stem": "plain"},
    ),
    "mmseg fcn r50-d8": ("mmseg", torch.mmseg_fcn(50, 19), {"head.args.concat_input": True, "head.args.num_convs": 2}),
    "vainf v3 resnet50": (
        "vainf",
        torch.resnet("backbone.", 50) | torch.vainf_v3_head(2048, 21),
        {"output_stride": 16, "head.args.num_refinements": 1},
    ),
    "vainf v3+ resnet101": (
        "vainf",
        torch.resnet("backbone.", 101) | torch.vainf_v3plus_head(2048, 256, 19),
        {"align_corners": False, "head.args.num_decoder_convs": 1},
    ),
    "vainf v3 mobilenet": ("vainf", torch.vainf_mobilenet_v2() | torch.vainf_v3_head(320, 21), {}),
    "vainf v3+ mobilenet": (
        "vainf",
        torch.vainf_mobilenet_v2() | torch.vainf_v3plus_head(320, 24, 21),
        {"backbone.args.padded_expansion": True, "backbone.args.stem_padding": "valid"},
    ),
    "jfzhang resnet101": (
        "jfzhang",
        torch.jfzhang(21),
        {"align_corners": True, "backbone.args.multi_grid": (1, 2, 4), "backbone.args.carrier_rate": "new"},
    ),
    "kazuto v2 resnet101": (
        "kazuto",
        torch.kazuto_v2("base.", 21),
        {"scales": (1.0, 0.75, 0.5), "align_corners": False, "backbone.args.pool_padding": "ceil"},
    ),
    "detectron2 v3+ R-103": (
        "detectron2",
        torch.detectron2(101, 19, plus=True),
        {"output_stride": 16, "normalization": "imagenet", "head.args.pooling_norm": False},
    ),
    "detectron2 v3 R-52": ("detectron2", torch.detectron2(50, 19, plus=False), {"backbone.args.stem": "beta"}),
}
BACKBONES = {
    "tf xception_41": ("tf_deeplab", tf.xception(41) | tf.classifier("xception_41", 2048), {}),
    "tf xception_71": ("tf_deeplab", tf.with_training(tf.xception(71) | tf.classifier("xception_71", 2048)), {}),
    "tf resnet_v1_50": (
        "tf_deeplab",
        tf.resnet_v1(50, beta=False) | tf.classifier("resnet_v1_50", 2048) | {"resnet_v1_50/mean_rgb": (3,)},
        {"normalization": "slim_mean"},
    ),
    "tf mobilenet_v2_1.4": ("tf_deeplab", _IMAGENET_V2, {"backbone.args.width": 1.4, "backbone.args.divisor": 8}),
    "tf mobilenet_v3_large": (
        "tf_deeplab",
        tf.mobilenet_v3("large") | tf.classifier("MobilenetV3", 960, 1280, name="Conv_2"),
        {"backbone.args.tail": "full", "backbone.args.minimalistic": False},
    ),
    "tfslim folded 0.35": ("tfslim_folded", tf.tfslim_folded(0.35), {"backbone.args.width": 0.35}),
    "gluon": ("gluon", torch.gluon_mobilenet_v2(), {"backbone.args.expand_first": True, "backbone.args.width": 1.0}),
    "mmseg resnet50_v1c": ("mmseg", torch.resnet("", 50, stem="v1c") | torch.classifier(), {}),
    "kazuto coco": ("kazuto", torch.kazuto_resnet101("") | torch.classifier(), {"normalization": "caffe_mean"}),
    "detectron2 R-103": ("detectron2", torch.detectron2_resnet("", 101) | torch.classifier("stem.fc"), {}),
}
# Files of layouts that are tested elsewhere: none of those here may take them.
OTHERS = {
    "torchvision v3": ("torchvision", torch.torchvision_deeplabv3(50, 21), {}),
    "torchvision imagenet": ("torchvision", torch.resnet("", 101) | torch.classifier(), {}),
}
CASES = NETWORKS | BACKBONES | OTHERS


def _recognize(layout_name, shapes):
    return registry.resolve(LAYOUTS, f"{layout_name}.recognize")(shapes)


def _targets(model):
    """Path -> shape of all arrays of the network, or of the backbone where the file has no more."""
    images = jnp.zeros((1, 33, 33, 3), jnp.uint8)
    if "head" in model:
        # Several scales would make the network several times, with the same weights.
        network, prefix = build_model(model_config({**model, "scales": ()})), ""
    else:
        network = registry.resolve("backbones", model["backbone"]["name"])(
            output_stride=32, **model["backbone"]["args"]
        )
        images, prefix = images.astype(jnp.float32), "backbone/"
    tree = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    return {
        f"{collection}/{prefix}{'/'.join(key.key for key in path)}": leaf.shape
        for collection, part in tree.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(part)
    }


def _setting(model, path):
    for name in path.split("."):
        model = model[name]
    return model


@pytest.mark.parametrize("name", NETWORKS | BACKBONES)
def test_every_name_has_its_place_and_every_place_its_name(name):
    layout_name, shapes, settings = CASES[name]
    layout = _recognize(layout_name, shapes)
    assert {path: _setting(layout.model, path) for path in settings} == settings
    places = collections.defaultdict(list)
    found = {}
    for source, shape in shapes.items():
        if any(re.fullmatch(pattern, source) for pattern in layout.ignored):
            continue
        path, transform = place(source, layout.rules)
        places[path].append(source)
        found[path] = reorder(np.broadcast_to(np.float32(0), shape), transform).shape
    assert all(len(sources) == 1 for sources in places.values()), places[""]
    targets = _targets(layout.model)
    if layout.folded:  # of batch norm the biases alone are left
        targets = {path: shape for path, shape in targets.items() if not path.endswith(("/scale", "/mean", "/var"))}
    assert found == targets


def _takes(layout_name, shapes):
    try:
        _recognize(layout_name, shapes)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("layout_name", registry.module_names(LAYOUTS))
def test_a_layout_takes_its_own_files_and_refuses_all_others(layout_name):
    taken = [name for name, (_, shapes, _) in CASES.items() if _takes(layout_name, shapes)]
    assert taken == [name for name, (owner, _, _) in CASES.items() if owner == layout_name]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("kazuto v2 resnet101", ("base.layer4.block23.", "base.layer4.block99x."), "'base.layer4' has 22 blocks"),
        ("detectron2 R-103", ("res4.22.", "res4.x."), "'res4' has 22 units"),
        ("tf half mobilenet_v2 v3+, dense", ("MobilenetV2/expanded_conv_16/", "x"), "15 of the 16 names"),
        ("tf mobilenet_v3_large", ("MobilenetV3/expanded_conv_14/", "x"), "MobilenetV3 has 14 blocks"),
        ("tf xception_65 v3+", ("concat_projection/", "x"), "there is no 'concat_projection/weights'"),
        ("jfzhang resnet101", ("backbone.layer1.", "backbone.block1."), "there is no 'backbone.layer1"),
    ],
)
def test_networks_that_are_not_here_are_named(name, change, words):
    layout_name, shapes, _ = CASES[name]
    changed = {source.replace(*change): shape for source, shape in shapes.items()}
    with pytest.raises(ValueError, match=re.escape(words)):
        _recognize(layout_name, changed)
