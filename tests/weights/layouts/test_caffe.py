"""The authors' Caffe networks: every layer of their published prototxts has one place, and every place of ours a layer.

The lists are written out from the networks' descriptions: VGG-16 (1409.1556) with DeepLab's last layers, and ResNet-101
(1512.03385) as its authors name its layers in Caffe.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caffe_files import layer
from flax import traverse_util

from deeplab_jax.apps.import_weights import ReadOptions, model_config, read_weights
from deeplab_jax.models.build import build_model
from deeplab_jax.weights.layouts import kazuto
from deeplab_jax.weights.layouts.caffe import recognize
from deeplab_jax.weights.rules import place

VGG = [(1, 2, 64), (2, 2, 128), (3, 3, 256), (4, 3, 512), (5, 3, 512)]
RESNET = {2: "a b c", 3: "a b1 b2 b3", 4: "a " + " ".join(f"b{unit}" for unit in range(1, 23)), 5: "a b c"}


def _conv(name, size, channels_in, channels, *, bias=True):
    return {f"{name}/weight": (channels, channels_in, size, size)} | ({f"{name}/bias": (channels,)} if bias else {})


def _vgg16(last):
    shapes, channels = {}, 3
    for stage, num_convs, features in VGG:
        for conv in range(1, num_convs + 1):
            shapes |= _conv(f"conv{stage}_{conv}", 3, channels, features)
            channels = features
    return shapes | last


def large_fov(logits):
    """The last layers of v1's and v2's DeepLab-LargeFOV."""
    return _conv("fc6", 3, 512, 1024) | _conv("fc7", 1, 1024, 1024) | _conv(logits, 1, 1024, 21)


def _aspp():
    shapes = {}
    for branch in (1, 2, 3, 4):
        shapes |= _conv(f"fc6_{branch}", 3, 512, 1024) | _conv(f"fc7_{branch}", 1, 1024, 1024)
        shapes |= _conv(f"fc8_voc12_{branch}", 1, 1024, 21)
    return shapes


def _norm(norm, scale, channels):
    names = (f"{norm}/mean", f"{norm}/variance", f"{scale}/weight", f"{scale}/bias")
    return dict.fromkeys(names, (channels,))


def _resnet101(last, suffix=""):
    shapes = _conv(f"conv1{suffix}", 7, 3, 64, bias=False)
    shapes |= _norm(f"bn_conv1{suffix}", f"scale_conv1{suffix}", 64)
    channels = 64
    for stage, units in RESNET.items():
        planes = 32 * 2 ** (stage - 1)
        for unit in units.split():
            layers = [("2a", 1, channels, planes), ("2b", 3, planes, planes), ("2c", 1, planes, 4 * planes)]
            if unit == "a":
                layers.append(("1", 1, channels, 4 * planes))
            for part, size, channels_in, features in layers:
                name = f"{stage}{unit}_branch{part}{suffix}"
                shapes |= _conv(f"res{name}", size, channels_in, features, bias=False)
                shapes |= _norm(f"bn{name}", f"scale{name}", features)
            channels = 4 * planes
    return shapes | last


def _resnet_aspp(suffix=""):
    shapes = {}
    for branch in range(4):
        shapes |= _conv(f"fc1_voc12_c{branch}{suffix}", 3, 2048, 21)
    return shapes


NETWORKS = {
    "v1 LargeFOV": (_vgg16(large_fov("fc8_pascal")), "large_fov.large_fov", ()),
    "v2 LargeFOV": (_vgg16(large_fov("fc8_voc12")), "large_fov.large_fov", ()),
    "v2 VGG-16 ASPP": (_vgg16(_aspp()), "aspp_sum.aspp_l", ()),
    "v2 ResNet-101": (_resnet101(_resnet_aspp()), "aspp_sum.aspp_sum", (1.0, 0.75, 0.5)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_name_has_one_place_and_each_place_a_name(name):
    shapes, head, scales = NETWORKS[name]
    layout = recognize(shapes)
    config = model_config(layout.model)
    assert (config.head.name, tuple(config.scales), config.output_stride, config.num_classes) == (head, scales, 8, 21)
    model = build_model(config)
    ours = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3), jnp.uint8)))
    flat = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(dict(ours), sep="/").items()}
    placed = {source: place(source, layout.rules)[0] for source in shapes}
    assert sorted(placed.values()) == sorted(flat)
    for source, path in placed.items():
        assert sorted(flat[path]) == sorted(shapes[source]), (source, path)


def test_branches_stored_at_other_scales_are_passed_over():
    shapes = _resnet101(_resnet_aspp())
    again = _resnet101(_resnet_aspp("_res075"), "_res075")
    layout = recognize(shapes | again)
    assert layout.model["scales"] == (1.0, 0.75, 0.5)
    assert not any(place(name, layout.rules)[0] for name in again)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"conv1/weight": (64, 3, 7, 7)}, "there is no 'bn_conv1/mean'"),
        (_vgg16({"fc6/weight": (9, 512, 5, 5), "fc8/weight": (2, 9, 1, 1)}), "'fc6' is 5x5; there are 3x3, 4x4, 7x7"),
        (_vgg16({}), "there is no 'fc6/weight'"),
    ],
)
def test_other_networks_are_refused(shapes, words):
    with pytest.raises(ValueError, match=words):
        recognize(shapes)


def test_a_classifier_is_a_backbone():
    fc = {"fc6/weight": (4096, 25088), "fc7/weight": (4096, 4096), "fc8/weight": (1000, 4096)}
    assert "head" not in recognize(_vgg16(fc)).model
    assert "head" not in recognize(_resnet101({"fc1000/weight": (1000, 2048), "fc1_coco/weight": (91, 2048)})).model


def _of_kazuto(name):
    """kazuto's name of one of ResNet-101's arrays, by the translation in its convert.py."""
    leaves = {"mean": "running_mean", "variance": "running_var"}
    layer_name, leaf = name.split("/")
    kind, rest = re.fullmatch(r"(res|bn_?|scale_?|fc)?(.*)", layer_name).groups()
    part = "conv" if kind in (None, "res") else "bn"
    leaf = leaves.get(leaf, leaf)
    if kind == "fc":
        return f"base.aspp.c{rest[-1]}.{leaf}"
    if rest == "conv1":
        return f"base.layer1.conv1.{part}.{leaf}"
    unit, branch = re.fullmatch(r"(\d\w+)_branch(\w+)", rest).groups()
    block = "abc".index(unit[1]) + 1 if len(unit) == 2 else int(unit[2:]) + 1
    layer_id = {"1": "shortcut", "2a": "reduce", "2b": "conv3x3", "2c": "increase"}[branch]
    return f"base.layer{unit[0]}.block{block}.{layer_id}.{part}.{leaf}"


def test_arrays_go_where_kazuto_s_conversion_puts_them():
    """Whose logits are compared with its own network's elsewhere."""
    shapes = _resnet101(_resnet_aspp())
    ours = recognize(shapes).rules
    theirs = kazuto.recognize({_of_kazuto(name): shape for name, shape in shapes.items()}).rules
    for name in shapes:
        assert place(name, ours) == place(_of_kazuto(name), theirs)


def test_a_file_written_by_the_format(tmp_path, rng):
    shapes = _vgg16(large_fov("fc8_voc12"))
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name in ("conv1_1/weight", "conv5_3/bias", "fc8_voc12/weight"):
        arrays[name] = rng.normal(size=shapes[name]).astype(np.float32)
    names = dict.fromkeys(name.partition("/")[0] for name in arrays)
    layers = [layer(name, "Convolution", arrays[f"{name}/weight"], arrays[f"{name}/bias"]) for name in names]
    path = tmp_path / "train_iter_6000.caffemodel"
    path.write_bytes(b"".join(layers))
    imported = read_weights(str(path), ReadOptions())
    assert imported.config.normalization == "caffe_mean"
    params = imported.variables["params"]
    kernel = arrays["conv1_1/weight"][:, ::-1].transpose(2, 3, 1, 0)  # it reads BGR
    np.testing.assert_array_equal(params["backbone"]["conv1_1"]["kernel"], kernel)
    np.testing.assert_array_equal(params["backbone"]["conv5_3"]["bias"], arrays["conv5_3/bias"])
    logits = arrays["fc8_voc12/weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["head"]["logits"]["kernel"], logits)
