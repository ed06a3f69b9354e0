"""MobileNetV2's foreign backbones: the name lists both ways, and the features of the systems they come from."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.apps.import_weights import pretrained_variables
from deeplab_jax.backbones.mobilenet_v2 import mobilenet_v2
from deeplab_jax.config import ModelConfig, PartConfig, PretrainedConfig
from deeplab_jax.presets import PRESETS
from deeplab_jax.types import NORMALIZATIONS, UserError

FILES = {
    "tfslim_folded": ("mobilenet_v2_imagenet_tfslim_folded.npz", "mobilenetv2_tfslim_folded_features.npz"),
    "gluon": ("mobilenet_v2_imagenet_gluon.npz", "mobilenetv2_gluon_bn_features.npz"),
}
_SYSTEMS = {"tfslim_folded": PRESETS["tf_slim"], "gluon": PRESETS["gluon"]}
MODELS = {name: system.model(backbone=system.part("mobilenet_v2.mobilenet_v2")) for name, system in _SYSTEMS.items()}


def _variables(model):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3)), train=False))
    return {
        name: {"backbone": tree} for name, tree in jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes).items()
    }


def _config(path, layout_name, **changes):
    model = MODELS[layout_name]
    fields = {"backbone": PartConfig(**model["backbone"]), "normalization": model["normalization"], **changes}
    return ModelConfig(pretrained=PretrainedConfig(source=str(path), layout=layout_name), **fields)


@pytest.mark.parametrize("layout_name", FILES)
def test_features_are_those_of_the_source(layout_name, shared):
    weights, golden = FILES[layout_name]
    model = mobilenet_v2(output_stride=32, **MODELS[layout_name]["backbone"]["args"])
    config = _config(shared / "weights" / weights, layout_name)
    variables, report, folded = pretrained_variables(config, _variables(model))
    assert report.is_complete
    assert folded == (layout_name == "tfslim_folded")
    expected = np.load(shared / "weights" / golden)
    normalization = NORMALIZATIONS[config.normalization]
    images = (expected["input_u8"].astype(np.float32) - np.float32(normalization.mean)) / np.float32(normalization.std)
    inner = {name: tree["backbone"] for name, tree in variables.items()}
    features = jax.jit(lambda v, x: model.apply(v, x, train=False))(inner, images)
    for stride in (16, 32):
        want = expected[f"stride{stride}"].transpose(0, 2, 3, 1)
        # Over the features' spread; float32 through 50 layers summed in another order (measured: 2e-5).
        np.testing.assert_allclose(features[f"stride{stride}"], want, atol=1e-4 * want.std())


@pytest.fixture
def folded_file(tmp_path, rng):
    """A width-0.25 network in the TF-slim form, made by turning the rules around."""
    model = mobilenet_v2(output_stride=32, width=0.25)
    arrays = {}
    for path, leaf in _flat(_variables(model)["params"]["backbone"]).items():
        module, kind, name = path.rsplit("/", 2)
        block, _, part = module.partition("/")
        if (kind, name) == ("norm", "scale"):
            continue
        middle = {"stem": "Conv_"}.get(block) or (
            "expanded_conv_" if block == "block0" else f"expanded_conv_{block[5:]}_"
        )
        if part:
            middle += f"{part}_"
        op = "depthwise" if part == "depthwise" else "Conv2D"
        value = rng.normal(size=leaf.shape).astype(np.float32)
        if kind == "conv":
            value = value.transpose((2, 0, 1, 3) if part == "depthwise" else (3, 0, 1, 2))
        arrays[f"MobilenetV2_{middle}{op}_{'weights' if kind == 'conv' else 'bias'}"] = value
    path = tmp_path / "folded.npz"
    np.savez(path, **arrays)
    return path, model, arrays


def _flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for name, sub in tree.items() for k, v in _flat(sub, f"{prefix}/{name}" if prefix else name).items()}


def _quarter(path):
    return _config(path, "tfslim_folded", backbone=PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.25}))


def test_folded_batch_norm_is_the_identity_with_the_files_biases(folded_file):
    path, model, arrays = folded_file
    variables, report, folded = pretrained_variables(_quarter(path), _variables(model))
    assert report.is_complete
    assert folded
    params, stats = variables["params"]["backbone"]["block3"], variables["batch_stats"]["backbone"]["block3"]
    np.testing.assert_array_equal(
        params["expand"]["norm"]["bias"], arrays["MobilenetV2_expanded_conv_3_expand_Conv2D_bias"]
    )
    norm, moments = params["expand"]["norm"], stats["expand"]["norm"]
    np.testing.assert_allclose(norm["scale"] / np.sqrt(moments["var"] + 1e-3), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(moments["mean"], 0.0)


def test_a_file_that_does_not_fit_lists_every_name(folded_file):
    path, model, arrays = folded_file
    arrays["surprise"] = arrays.pop("MobilenetV2_expanded_conv_3_expand_Conv2D_weights")
    np.savez(path, **arrays)
    words = r"does not fit the backbone: .*missing: params/backbone/block3/expand/conv/kernel.*unexpected: surprise"
    with pytest.raises(UserError, match=words):
        pretrained_variables(_quarter(path), _variables(model))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalization": "imagenet"}, r"normalization='imagenet': .* need 'minus_one_to_one'"),
        (
            {"backbone": PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.25, "padding": "symmetric"})},
            r"backbone\.args\.padding='symmetric': .* need 'tf_same'",
        ),
        ({"backbone": PartConfig("resnet.resnet50")}, r"backbone\.name='resnet.resnet50': .* need 'mobilenet_v2"),
    ],
)
def test_settings_that_pretrained_weights_cannot_work_with_are_refused(changes, words, folded_file):
    path, model, _ = folded_file
    config = dataclasses.replace(_quarter(path), **changes)
    with pytest.raises(UserError, match=words):
        pretrained_variables(config, _variables(model))
