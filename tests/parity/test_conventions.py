"""Each convention alone: with any other choice an imported network is another function, or takes no such weights."""

from __future__ import annotations

import copy
import functools

import golden_files
import numpy as np
import pytest
from both_sides import backbone_config, drawn_arrays, empty_variables, output_by_parts, recognized
from drawn_arrays import drawn_images
from parity_cases import CASES
from test_golden import TOLERANCE

from deeplab_jax.apps.import_weights import model_config
from deeplab_jax.config import PretrainedConfig
from deeplab_jax.models.build import build_model
from deeplab_jax.presets import PRESETS
from deeplab_jax.types import UserError
from deeplab_jax.weights.load import load_weights

ODD, EVEN = 0, 1  # which of a case's images
# Each compiles a backbone: the first ones in every run, the others with `-m slow`.
CHANGES = [
    ("torchvision_lraspp_mobilenet_v3_large", ODD, "align_corners", True),
    ("torchvision_lraspp_mobilenet_v3_large", ODD, "normalization", "minus_one_to_one"),
    ("torchvision_lraspp_mobilenet_v3_large", ODD, "head.gate", "hard_sigmoid"),
    ("torchvision_lraspp_mobilenet_v3_large", ODD, "head.epsilon", 1e-3),
    ("torchvision_lraspp_mobilenet_v3_large", ODD, "backbone.low_level_tap", "last"),
    ("torchvision_vgg16", EVEN, "backbone.pool_size", 3),
    ("smp_deeplabv3_mobilenet_v2", EVEN, "head.atrous_rates", (6, 12, 24)),
    ("smp_deeplabv3_mobilenet_v2", EVEN, "head.rates_output_stride", 16),
    ("smp_deeplabv3_mobilenet_v2", EVEN, "head.epsilon", 1e-3),
    ("smp_deeplabv3_mobilenet_v2", EVEN, "backbone.carrier_rate", "old"),
    ("torchvision_deeplabv3_resnet50", ODD, "auxiliary.epsilon", 1e-3),
]
SLOW_CHANGES = [
    ("torchvision_lraspp_mobilenet_v3_large", EVEN, "backbone.padding", "tf_same"),
    ("torchvision_lraspp_mobilenet_v3_large", ODD, "backbone.carrier_rate", "old"),
    ("torchvision_lraspp_mobilenet_v3_large", ODD, "backbone.epsilon", 1e-5),
    ("timm_xception41", EVEN, "backbone.padding", "tf_same"),
    ("timm_xception41", ODD, "backbone.epsilon", 1e-5),
    ("smp_deeplabv3_mobilenet_v2", EVEN, "backbone.padding", "tf_same"),
    ("smp_deeplabv3_mobilenet_v2", EVEN, "backbone.epsilon", 1e-3),
    ("smp_deeplabv3plus_resnet50", EVEN, "backbone.carrier_rate", "old"),
    ("smp_deeplabv3plus_resnet50", EVEN, "head.epsilon", 1e-3),
    ("smp_deeplabv3plus_resnet50", EVEN, "head.rates_output_stride", 8),
    ("smp_deeplabv3plus_tu_xception41", EVEN, "backbone.low_level_tap", "linear"),
    ("smp_deeplabv3plus_efficientnet_b0", EVEN, "backbone.padding", "symmetric"),
    ("smp_deeplabv3plus_efficientnet_b0", EVEN, "backbone.carrier_rate", "old"),
    ("smp_deeplabv3plus_efficientnet_b0", EVEN, "backbone.epsilon", 1e-5),
    ("torchvision_efficientnet_b0", EVEN, "backbone.padding", "tf_same"),
    ("torchvision_efficientnet_b0", ODD, "backbone.epsilon", 1e-3),
    ("torchvision_deeplabv3_resnet50", ODD, "backbone.strided_unit", "last"),
    ("torchvision_deeplabv3_resnet50", EVEN, "backbone.padding", "tf_same"),
    ("torchvision_deeplabv3_resnet50", ODD, "backbone.epsilon", 1e-3),
]
# With these the network has other parameters.
STRUCTURE = [
    ("torchvision_deeplabv3_resnet50", "head.num_refinements", 0),
    ("torchvision_lraspp_mobilenet_v3_large", "head.gate_bias", True),
    ("torchvision_lraspp_mobilenet_v3_large", "head.low_level_stride", 4),
    ("smp_deeplabv3_mobilenet_v2", "backbone.expand_first", True),
    ("smp_deeplabv3_mobilenet_v2", "backbone.last_conv", False),
    ("smp_deeplabv3plus_resnet50", "head.num_refinements", 0),
    ("smp_deeplabv3plus_resnet50", "head.num_decoder_convs", 2),
    ("smp_deeplabv3plus_resnet50", "head.separable", False),
    ("smp_deeplabv3plus_resnet50", "head.inner_norm", True),
]
NOT_SEEN = {
    "dropout",  # in training alone
    "pool_padding",  # VGG-16's: torchvision drops an odd last row, which no padding does; see its case
}


@functools.lru_cache(maxsize=1)
def loaded(name):
    """The layout's fields and the variables of a case."""
    case, golden = CASES[name], golden_files.read(name)
    arrays = drawn_arrays(case, golden.shapes)
    layout = recognized(case.layout, golden.shapes)
    variables = empty_variables(_model(layout.model))
    scope = "backbone" if case.output == "features" else "model"
    return layout.model, load_weights(arrays, layout, variables, scope=scope)[0]


def _model(fields):
    config = model_config(fields) if "head" in fields else backbone_config(fields, PretrainedConfig())
    return build_model(config)


def _changed(fields, path, value):
    fields = copy.deepcopy(dict(fields))
    part, _, argument = path.partition(".")
    (fields[part]["args"] if argument else fields)[argument or part] = value
    return fields


def _error(name, image_id, fields, variables):
    size = CASES[name].sizes[image_id]
    output = output_by_parts(CASES[name].output, _model(fields), variables)(drawn_images(name, size))
    golden = golden_files.read(name).outputs[size]
    return golden_files.error(output, golden, name, size) if output.shape == golden.shape else np.inf


@pytest.mark.parametrize(
    ("name", "image_id", "path", "value"),
    [*CHANGES, *(pytest.param(*change, marks=pytest.mark.slow) for change in SLOW_CHANGES)],
)
def test_any_other_choice_is_another_function(name, image_id, path, value):
    """That the system's own choice is right to 1e-4, test_golden.py shows."""
    fields, variables = loaded(name)
    assert _error(name, image_id, _changed(fields, path, value), variables) > 10 * TOLERANCE


def test_one_checkpoint_serves_two_output_strides():
    """Features at 16 are every second one at 8, since torchvision's ResNets are atrous in the papers' way."""
    name = "torchvision_deeplabv3_resnet50"
    fields, variables = loaded(name)
    images = drawn_images(name, CASES[name].sizes[ODD])

    models = [_model(_changed(fields, "output_stride", output_stride)) for output_stride in (8, 16)]
    fine, coarse = (output_by_parts("features", model, variables)(images) for model in models)
    fine_logits, coarse_logits = (output_by_parts("logits", model, variables)(images) for model in models)
    assert np.abs(fine[:, ::2, ::2] - coarse).max() < TOLERANCE * np.std(coarse)
    assert np.isfinite(fine_logits).all()
    assert np.isfinite(coarse_logits).all()
    # Image pooling and the convolution behind ASPP see another grid: alike, but not the same.
    correlation = np.corrcoef(np.ravel(fine_logits), np.ravel(coarse_logits))[0, 1]
    assert 0.8 < correlation < 1 - TOLERANCE


@pytest.mark.parametrize(("name", "path", "value"), STRUCTURE)
def test_any_other_structure_takes_no_such_weights(name, path, value):
    golden = golden_files.read(name)
    layout = recognized(CASES[name].layout, golden.shapes)
    variables = empty_variables(_model(_changed(layout.model, path, value)), np.int8)
    arrays = {key: np.broadcast_to(np.int8(0), shape) for key, shape in golden.shapes.items()}
    with pytest.raises(UserError, match="does not fit the network"):
        load_weights(arrays, layout, variables, strict=True)  # else a bias that is missing is zero


@pytest.mark.parametrize("preset", ["torchvision", "smp"])
def test_every_convention_of_a_preset_is_tried(preset):
    tried = set()
    changes = [(name, path) for name, _, path, _ in (*CHANGES, *SLOW_CHANGES)]
    for name, path in (*changes, *((name, path) for name, path, _ in STRUCTURE)):
        part, _, argument = path.partition(".")
        fields = recognized(CASES[name].layout, golden_files.read(name).shapes).model
        tried.add((fields[part]["name"].partition(".")[0], argument) if argument else ("model", part))
    arguments = PRESETS[preset].arguments
    wanted = {(module, option) for module, options in arguments.items() for option in options}
    assert {(module, option) for module, option in wanted - tried if option not in NOT_SEEN} == set()
    assert {("model", "align_corners"), ("model", "normalization")} <= tried
