"""One small network in every wrapping that training scripts give it; what was taken and what was left is said."""

from __future__ import annotations

import json
import pickle
import re
import sys
import types

import numpy as np
import pytest
from flax import traverse_util
from foreign_network import NUM_CLASSES, draw, shapes_of, small_network

from deeplab_jax.apps.assembly.source_network import say_assumed, with_settings
from deeplab_jax.apps.assembly.weights_file import read_file
from deeplab_jax.apps.import_weights import ReadOptions, model_config, read_weights
from deeplab_jax.data.dataset import make_info
from deeplab_jax.heads.aspp import rates_in_cells
from deeplab_jax.types import UserError, WeightLayout, WeightRule
from deeplab_jax.weights.formats.safetensors_file import write
from deeplab_jax.weights.source_settings import NOTHING_STATED, SourceSettings, read_source_settings
from deeplab_jax.weights.timm_mobiles import PORTED

LOGITS = "segmentation_head.classifier.convolution"
STEM = "mobilenet_v2.conv_stem.first_conv"
LOSS = np.ones(2, np.float32)
KERNEL = np.ones((8, 3, 3, 3), np.float32)


@pytest.fixture(scope="module")
def arrays():
    return draw(np.random.default_rng(0), shapes_of(small_network()))[1]


def _prefixed(arrays, prefix):
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _pickled(tmp_path, tree):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(tree, 4))
    return str(path)


def _optimizer(arrays):
    return {"state": {index: {"exp_avg": array} for index, array in enumerate(arrays.values())}, "param_groups": []}


WRAPPED = {
    "bare": (lambda a: a, ""),
    "parallel": (lambda a: _prefixed(a, "module."), "names are read without 'module.'"),
    "compiled": (lambda a: _prefixed(a, "_orig_mod."), "names are read without '_orig_mod.'"),
    "parallel and compiled": (lambda a: _prefixed(a, "module._orig_mod."), "read without 'module._orig_mod.'"),
    "compiled and parallel": (lambda a: _prefixed(a, "_orig_mod.module."), "read without '_orig_mod.module.'"),
    "twice parallel": (lambda a: _prefixed(a, "module.module."), "read without 'module.module.'"),
    "compiled in parts": (
        lambda a: {name.replace("mobilenet_v2.", "mobilenet_v2._orig_mod."): array for name, array in a.items()},
        "names are read without '_orig_mod.'",
    ),
    "lightning": (
        lambda a: {
            "epoch": 3,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": _prefixed(a, "model.") | {"loss_fn.weight": LOSS, "mean": KERNEL[:1, :, :1, :1]},
            "optimizer_states": [_optimizer(a)],
        },
        "its weights are those of 'state_dict.model'",
    ),
    "lightning, compiled": (
        lambda a: {"state_dict": _prefixed(a, "net._orig_mod.")},
        "'state_dict.net', names are read without '_orig_mod.'",
    ),
    "averaged": (lambda a: _prefixed(a, "module.") | {"n_averaged": np.int64(3)}, "names are read without 'module.'"),
    "with an average": (
        lambda a: {"model": a, "model_ema": _prefixed(a, "module.")},
        "of 'model'; it holds 'model_ema' too, which --part=model_ema takes instead",
    ),
    "average alone": (lambda a: {"model_ema": _prefixed(a, "module.")}, "its weights are those of 'model_ema'"),
    "deepspeed": (lambda a: {"module": a, "ds_version": "0.15.0"}, "read without 'module.'"),
    "unknown wrapper": (lambda a: {"net_g": a, "iter": 3}, "its weights are those of 'net_g'"),
    "another": (
        lambda a: {"generator_state_dict": a, "optimizer": _optimizer(a), "epoch": 4},
        "its weights are those of 'generator_state_dict'",
    ),
    "list": (lambda a: [a, {"epoch": 3}], "its weights are those of '0'"),
    "nested": (lambda a: {"run": {"best": {"student": a}}}, "its weights are those of 'run.best.student'"),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_wrapped(wrapping, arrays, tmp_path):
    wrap, words = WRAPPED[wrapping]
    found = read_file(_pickled(tmp_path, wrap(arrays)), "")
    assert found.layout_name == "transformers"
    assert set(found.arrays) - {"n_averaged"} == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    said = "; ".join(found.notes)
    assert re.search(words, said) if words else not said


@pytest.mark.parametrize("prefix", ["module.", "model."])
def test_prefixes_in_other_formats(prefix, arrays, tmp_path):
    path = tmp_path / "weights.safetensors"
    write(path, _prefixed(arrays, prefix), {"format": "pt"})
    assert set(read_file(str(path), "").arrays) == set(arrays)
    np.savez(tmp_path / "weights.npz", **_prefixed(arrays, prefix))
    assert set(read_file(str(tmp_path / "weights.npz"), "").arrays) == set(arrays)


def test_a_part_is_chosen(arrays, tmp_path):
    other = {name: array + 1 for name, array in arrays.items()}
    path = _pickled(tmp_path, {"model": arrays, "model_ema": _prefixed(other, "module.")})
    found = read_file(path, "", part="model_ema")
    np.testing.assert_array_equal(found.arrays[f"{LOGITS}.bias"], other[f"{LOGITS}.bias"])
    with pytest.raises(UserError, match="holds nothing under 'ema'; there are model, model_ema"):
        read_file(path, "", part="ema")


def test_two_networks_ask_for_one(arrays, tmp_path):
    path = _pickled(tmp_path, {"teacher": arrays, "student": arrays})
    with pytest.raises(
        UserError, match=r"holds 2 networks, 'teacher', 'student'; say which with --part, e\.g\. --part="
    ):
        read_file(path, "")
    assert read_file(path, "", part="student").layout_name == "transformers"


def test_what_is_left_is_listed_and_strict_refuses_it(arrays, tmp_path):
    path = _pickled(tmp_path, arrays | {"criterion.weight": LOSS, "mean": KERNEL[:1, :, :1, :1], "std": LOSS})
    imported = read_weights(path, ReadOptions())
    assert "left out, as no part of the network: criterion, mean, std" in imported.notes
    with pytest.raises(UserError, match=r"unexpected: criterion\.weight, mean, std"):
        read_weights(path, ReadOptions(strict=True))
    wrapped = _pickled(tmp_path, {"mine": arrays, "loss": {"weight": LOSS}})
    with pytest.raises(UserError, match=r"left out, .*: loss; leave out --strict"):
        read_weights(wrapped, ReadOptions(strict=True))


def test_a_layer_that_is_not_known_is_refused(arrays, tmp_path):
    """Without it the network would compute something else."""
    path = _pickled(tmp_path, arrays | {"neck.conv.weight": KERNEL})
    with pytest.raises(UserError, match=r"unexpected: neck\.conv\.weight"):
        read_weights(path, ReadOptions())
    path = _pickled(tmp_path, arrays | {"perceptual.features.weight": KERNEL})
    assert "left out, as no part of the network: perceptual" in read_weights(path, ReadOptions()).notes


def test_logits_without_bias_have_zero(arrays, tmp_path):
    imported = read_weights(
        _pickled(tmp_path, {k: v for k, v in arrays.items() if k != f"{LOGITS}.bias"}), ReadOptions()
    )
    assert not imported.variables["params"]["head"]["logits"]["bias"].any()
    assert "params/head/logits/bias: not in the file, taken as zero" in imported.notes


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_than_rgb(channels, arrays, tmp_path):
    kernel = np.repeat(arrays[f"{STEM}.convolution.weight"][:, :1], channels, axis=1)
    imported = read_weights(_pickled(tmp_path, arrays | {f"{STEM}.convolution.weight": kernel}), ReadOptions())
    assert imported.info.channels == channels
    assert imported.info.channel_mean == imported.info.channel_std == (127.5,) * channels
    assert imported.config.normalization == "dataset"
    assert any(f"{channels} channel" in note and "[-1, 1]" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (f"{LOGITS}.weight", np.nan, "'segmentation_head.* holds values that are not finite"),
        (f"{STEM}.normalization.running_var", np.inf, "running_var' holds values that are not finite"),
        (f"{STEM}.normalization.running_var", -1.0, "running_var' holds negative variances"),
    ],
)
def test_a_broken_training_is_named(name, value, words, arrays, tmp_path):
    broken = np.array(arrays[name])
    broken.flat[0] = value
    with pytest.raises(UserError, match=words):
        read_weights(_pickled(tmp_path, arrays | {name: broken}), ReadOptions())


# ---- what the arrays do not show


def _folder(tmp_path, arrays, **settings):
    """As transformers' save_pretrained writes it."""
    write(tmp_path / "model.safetensors", arrays, {"format": "pt"})
    names = {str(class_id): f"thing {class_id}" for class_id in range(NUM_CLASSES)}
    config = {"architectures": ["MobileNetV2ForSemanticSegmentation"], "output_stride": 32, "id2label": names}
    (tmp_path / "config.json").write_text(json.dumps(config | settings))
    preprocessor = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return str(tmp_path)


def test_a_folder_with_its_config(arrays, tmp_path):
    imported = read_weights(_folder(tmp_path, arrays), ReadOptions())
    assert (imported.config.output_stride, imported.config.normalization) == (32, "imagenet")
    assert imported.info.class_names == ("thing 0", "thing 1", "thing 2", "thing 3")
    assert imported.names_classes
    said = "output stride 32, normalization and 4 class names: as its config.json has them"
    assert said in imported.notes
    assert not any("output stride" in note for note in imported.notes if "are assumed" in note)


def test_a_config_of_another_network_is_refused_though_its_arrays_fit(arrays, tmp_path):
    with pytest.raises(UserError, match=r"resnetblur50 averages or blurs where it takes strides \(its config\.json\)"):
        read_file(str(_folder(tmp_path, arrays, architecture="resnetblur50")), "")


def test_a_choice_counts_more_than_the_config(arrays, tmp_path):
    chosen = SourceSettings(output_stride=8, normalization="minus_one_to_one")
    imported = read_weights(_folder(tmp_path, arrays), ReadOptions(chosen=chosen))
    assert (imported.config.output_stride, imported.config.normalization) == (8, "minus_one_to_one")


def test_a_config_that_makes_no_sense_is_passed_over(arrays, tmp_path):
    folder = _folder(tmp_path, arrays, output_stride="eight", id2label={"0": "thing"})
    (tmp_path / "preprocessor_config.json").write_text("[")
    imported = read_weights(folder, ReadOptions())
    assert (imported.config.output_stride, imported.names_classes) == (16, False)


def test_what_nothing_says_is_assumed_in_one_line_with_its_flags(arrays, tmp_path):
    (line,) = read_weights(_pickled(tmp_path, arrays), ReadOptions()).notes
    for words in ("output stride 16", "normalization 'minus_one_to_one'", "aligned corners", "are assumed"):
        assert words in line
    for flag in ("--output_stride", "--normalization", "--align_corners"):
        assert flag in line


def test_every_assumption_can_be_chosen(arrays, tmp_path):
    chosen = SourceSettings(8, (), "imagenet", align_corners=False)
    imported = read_weights(_pickled(tmp_path, arrays), ReadOptions(chosen=chosen))
    config = imported.config
    assert (config.output_stride, config.normalization, config.align_corners) == (8, "imagenet", False)
    assert imported.notes == ("its 4 classes are taken to be numbers without names: the file does not say",)


@pytest.mark.parametrize(("activation", "says"), [("sigmoid", True), ("softmax2d", False), ("identity", False)])
def test_an_activation_that_makes_other_masks_is_told(activation, says, arrays, tmp_path):
    imported = read_weights(_folder(tmp_path, arrays, activation=activation), ReadOptions())
    assert any("'sigmoid' is not applied" in note for note in imported.notes) == says


def test_one_output_is_told(arrays, tmp_path):
    one = {name: array[:1] if name.startswith(LOGITS) else array for name, array in arrays.items()}
    imported = read_weights(_pickled(tmp_path, one), ReadOptions())
    assert any("its one output is one logit" in note for note in imported.notes)


def test_rates_must_fit_the_branches(arrays, tmp_path):
    with pytest.raises(UserError, match=r"atrous rates \(6, 12\): its head has 0 atrous branches"):
        read_weights(_pickled(tmp_path, arrays), ReadOptions(chosen=SourceSettings(atrous_rates=(6, 12))))


@pytest.mark.parametrize("output_stride", [0, 16])
def test_torchvisions_rates_are_the_same_at_each_stride(output_stride):
    head = {"name": "aspp.aspp", "args": {"atrous_rates": (6, 12, 18)}}
    layout = WeightLayout((), (), {"output_stride": 8, "head": head})
    arguments = with_settings(layout, SourceSettings(output_stride), "torchvision", "weights.pth")["head"]["args"]
    assert rates_in_cells(arguments, 8) == rates_in_cells(arguments, 16) == (12, 24, 36)
    arguments = with_settings(layout, SourceSettings(output_stride), "tf_deeplab", "weights.pth")["head"]["args"]
    assert rates_in_cells(arguments, 8) == (12, 24, 36) != rates_in_cells(arguments, 16)


def test_a_port_from_tensorflow_is_told_apart_by_what_is_said_of_it():
    backbone = {"name": "efficientnet.efficientnet_b0", "args": {"padding": "symmetric", "epsilon": 1e-5}}
    head = {"name": "aspp.aspp", "args": {"atrous_rates": ()}}
    model = {"output_stride": 8, "backbone": backbone, "head": head}
    layout = WeightLayout((), (), model, ported=PORTED)
    for name, is_ported in (("tu-tf_efficientnet_b0", True), ("efficientnet_b0", False)):
        known = read_source_settings({"encoder_name": name}, "config.json")
        assert known.ported is is_ported
        args = with_settings(layout, known, "smp", "weights.pth")["backbone"]["args"]
        assert args == (dict(PORTED) if is_ported else backbone["args"])
        assert not any("--ported" in line for line in _assumed(layout, known))
    assert any("--ported" in line for line in _assumed(layout, NOTHING_STATED))


def _assumed(layout, known):
    config = model_config({**layout.model, "num_classes": 4})
    return say_assumed(config, make_info("x", tuple("abcd")), known, "smp", has_port=bool(layout.ported))


def test_the_nearest_layout_is_named_by_what_the_file_lacks(arrays, tmp_path):
    lacking = {name: array for name, array in arrays.items() if "layer.15.reduce_1x1" not in name}
    with pytest.raises(UserError, match=r"the nearest is transformers: there is no 'mobilenet_v2\.layer\.15"):
        read_file(_pickled(tmp_path, lacking), "")


def test_settings_within_a_checkpoint(arrays, tmp_path):
    path = _pickled(tmp_path, {"state_dict": arrays, "hyper_parameters": {"output_stride": 8, "lr": 0.1}})
    imported = read_weights(path, ReadOptions())
    assert imported.config.output_stride == 8
    assert "output stride 8: as its hyper_parameters has them" in imported.notes


# ---- an auxiliary head


@pytest.fixture
def with_auxiliary(monkeypatch, tmp_path):
    """(file, layout) of a small network whose main head was replaced by one for two classes: the auxiliary has five."""
    tiny = {"num_units": (1, 1, 1, 1), "multi_grid": (1,), "strided_unit": "first", "width": 0.125}
    model = {
        "align_corners": False,
        "normalization": "imagenet",
        "output_stride": 16,
        "backbone": {"name": "resnet.ResNet", "args": tiny},
        "head": {"name": "auxiliary.auxiliary", "args": {}},
        "auxiliary": {"name": "auxiliary.auxiliary", "args": {"feature": "penultimate"}},
    }
    shapes = shapes_of(model_config({**model, "num_classes": 2}))
    named = {
        path: np.ones(leaf.shape, np.float32) for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()
    }
    channels = named["params/auxiliary/logits/kernel"].shape[2]
    named["params/auxiliary/logits/kernel"] = np.ones((1, 1, channels, 5), np.float32)
    named["params/auxiliary/logits/bias"] = np.ones(5, np.float32)
    layout = WeightLayout((WeightRule("(.*)", "{1}", "copy"),), (), {**model, "num_classes": 2})
    module = types.ModuleType("layout_of_mine")
    module.__file__ = "layout_of_mine.py"
    module.recognize = lambda shapes: layout
    monkeypatch.setitem(sys.modules, "layout_of_mine", module)
    return _pickled(tmp_path, named), "layout_of_mine:recognize"


def test_an_auxiliary_head_that_does_not_fit_is_left_out(with_auxiliary):
    path, layout = with_auxiliary
    imported = read_weights(path, ReadOptions(layout))
    assert imported.config.auxiliary.name == ""
    assert set(imported.variables["params"]) == {"backbone", "head"}
    assert any("auxiliary head does not fit the network and is left out" in note for note in imported.notes)
    with pytest.raises(UserError, match="misshapen: params/auxiliary/logits"):
        read_weights(path, ReadOptions(layout, strict=True))
