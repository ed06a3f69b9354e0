"""Names of other systems' files: each of one layout alone, each array with its place, each place with its array."""

from __future__ import annotations

import functools

import golden_files
import jax
import numpy as np
import pytest
from both_sides import backbone_config, empty_variables, recognized
from parity_cases import CASES

from deeplab_jax import registry
from deeplab_jax.apps.import_weights import AS_FOUND, import_checkpoint, model_config, read_weights
from deeplab_jax.config import PretrainedConfig
from deeplab_jax.models.build import build_model
from deeplab_jax.types import UserError
from deeplab_jax.weights.load import load_weights
from deeplab_jax.weights.rules import place

LAYOUTS = registry.module_names("weights.layouts")
# Trainable parameters, as torchvision's documentation has them; the published weights have the auxiliary head.
PUBLISHED = {
    "torchvision_deeplabv3_resnet50": 42_004_074,
    "torchvision_deeplabv3_resnet101": 60_996_202,
    "torchvision_deeplabv3_mobilenet_v3_large": 11_029_328,
    "torchvision_lraspp_mobilenet_v3_large": 3_221_538,
    "torchvision_fcn_resnet50": 35_322_218,
    "torchvision_fcn_resnet101": 54_314_346,
}
golden_of = functools.lru_cache(golden_files.read)


def _stand_ins(shapes):
    return {name: np.broadcast_to(np.int8(0), shape) for name, shape in shapes.items()}


def _is_recognized(layout, shapes):
    try:
        recognized(layout, shapes)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_no_other_layout_takes_the_names(name):
    """So that --layout may be left out, and a wrong one is answered with the right one."""
    golden = golden_of(name)
    assert [layout for layout in LAYOUTS if _is_recognized(layout, golden.shapes)] == [golden.layout]


def _is_imported(name):
    """Whether test_golden.py imports the whole file in every run, which fails where anything does not fit."""
    return not (CASES[name].slow or CASES[name].left_out)


@pytest.mark.parametrize("name", [name for name in CASES if name in PUBLISHED or not _is_imported(name)])
def test_arrays_and_places_fit_one_to_one(name):
    golden = golden_of(name)
    layout = recognized(golden.layout, golden.shapes)
    is_backbone = "head" not in layout.model
    config = backbone_config(layout.model, PretrainedConfig()) if is_backbone else model_config(layout.model)
    variables = empty_variables(build_model(config), np.int8)
    scope = "backbone" if is_backbone else "model"
    _, report = load_weights(_stand_ins(golden.shapes), layout, variables, scope=scope)
    assert report.is_complete
    assert len(report.loaded) + len(report.skipped) == len(golden.shapes)
    if name in PUBLISHED:
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PUBLISHED[name]


def test_vgg16s_connected_layers_fit_the_heads_of_fcn():
    golden = golden_of("torchvision_vgg16")
    layout = recognized(golden.layout, golden.shapes)
    config = model_config({**layout.model, "head": {"name": "fcn.fcn32s"}, "num_classes": 21, "output_stride": 32})
    variables = empty_variables(build_model(config), np.int8)
    _, report = load_weights(_stand_ins(golden.shapes), layout, variables, scope="fitting")
    assert report.missing == ("params/head/logits/bias", "params/head/logits/kernel")


def test_older_names_of_smps_v3_have_the_same_places():
    def older(name):
        for part, number in (("aspp", 0), ("conv", 1), ("bn", 2)):
            name = name.replace(f"decoder.{part}.", f"decoder.{number}.")
        return name

    shapes = golden_of("smp_deeplabv3_resnet50").shapes
    layout = recognized("smp", shapes)
    old_layout = recognized("smp", {older(name): shape for name, shape in shapes.items()})
    assert old_layout.model == layout.model
    assert [place(older(name), old_layout.rules) for name in shapes] == [place(name, layout.rules) for name in shapes]


def test_an_encoder_with_a_twin_says_which_it_is_taken_for(tmp_path):
    """timm's own MobileNetV3 and the one ported from TensorFlow differ in no name and no shape."""
    twin, alone = "smp_deeplabv3plus_tu_mobilenetv3_large_100", "smp_deeplabv3plus_resnet34"
    assert recognized("smp", golden_of(twin).shapes).ported == {"padding": "tf_same", "epsilon": 1e-3}
    assert recognized("smp", golden_of(alone).shapes).ported == {}
    notes = read_weights(_write(tmp_path / "twin.npz", twin), AS_FOUND).notes
    assert "a backbone of timm's own, not one ported from TensorFlow ('tf_...')" in notes[-1]
    assert "--ported" in notes[-1]


@pytest.mark.parametrize("name", ["torchvision_resnet50", "torchvision_mobilenet_v3_small", "timm_xception41"])
def test_a_classifier_decides_no_rates_and_no_taps(name):
    """Else training from it would refuse what only a segmentation network chooses."""
    golden = golden_of(name)
    arguments = recognized(golden.layout, golden.shapes).model["backbone"]["args"]
    assert "epsilon" in arguments
    assert not {"carrier_rate", "low_level_tap"} & set(arguments)


def _write(path, name):
    np.savez(path, **{key: np.zeros(shape, np.int8) for key, shape in golden_of(name).shapes.items()})
    return str(path)


def test_a_wrong_layout_is_answered_with_the_right_one(tmp_path):
    path = _write(tmp_path / "weights.npz", "torchvision_lraspp_mobilenet_v3_large")
    with pytest.raises(UserError, match=r"not of layout 'smp' .*; its names are those of layout torchvision"):
        import_checkpoint(path, layout="smp")


def test_a_backbone_alone_is_no_network(tmp_path):
    path = _write(tmp_path / "weights.npz", "torchvision_mobilenet_v2")
    with pytest.raises(UserError, match=r"holds only a backbone .*pretrained\.layout=torchvision"):
        import_checkpoint(path, layout="")


@pytest.mark.parametrize(
    ("layout", "name", "changed", "shape", "words"),
    [
        ("torchvision", "torchvision_resnet50", "layer1.0.se.fc1.weight", (16, 64, 1, 1), "has squeeze-and-excite"),
        (
            "torchvision",
            "torchvision_resnet50",
            "layer3.6.conv1.weight",
            (256, 1024, 1, 1),
            r"have \(3, 4, 7, 3\) bottleneck units",
        ),
        ("torchvision", "torchvision_vgg16", "features.30.weight", (512, 512, 3, 3), "there is VGG-16 alone"),
        ("torchvision", "torchvision_mobilenet_v3_small", "features.13.0.weight", (9, 9, 1, 1), "has 14 layers"),
        ("timm", "timm_xception41", "blocks.13.stack.conv1.bn_dw.weight", (9,), "has 14 blocks"),
        ("smp", "smp_deeplabv3_resnet50", "decoder.aspp.convs.1.0.0.weight", (9, 1, 3, 3), "full branches in v3"),
    ],
)
def test_networks_that_are_not_here_are_named(layout, name, changed, shape, words):
    with pytest.raises(ValueError, match=words):
        recognized(layout, {**golden_of(name).shapes, changed: shape})
