"""What configs of other systems state, in their own words."""

from __future__ import annotations

import pytest

from deeplab_jax.types import Normalization
from deeplab_jax.weights.source_settings import NOTHING_STATED, SourceSettings, read_source_settings

SMP = {
    "_model_class": "DeepLabV3Plus",
    "encoder_output_stride": 8,
    "decoder_atrous_rates": [6, 12, 18],
    "activation": "sigmoid",
    "classes": 2,
}


def test_segmentation_models_pytorch():
    wanted = SourceSettings(output_stride=8, atrous_rates=(6, 12, 18), activation="sigmoid", origin="config.json")
    assert read_source_settings(SMP, "config.json") == wanted
    nested = read_source_settings({"model": SMP, "lr": 0.1}, "hyper_parameters")
    assert (nested.output_stride, nested.atrous_rates) == (8, (6, 12, 18))


@pytest.mark.parametrize(
    ("mean", "std", "wanted"),
    [
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "imagenet"),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], "minus_one_to_one"),
        ([0.0, 0.2], [1.0, 0.5], Normalization((0.0, 51.0), (255.0, 127.5))),
        ([0.0, 0.2], [1.0, 0.0], ""),
        ([0.5], [0.5, 0.5], ""),
        ([123.7], [58.4], ""),
        ("text", None, ""),
    ],
)
def test_means_and_deviations(mean, std, wanted):
    assert read_source_settings({"image_mean": mean, "image_std": std}, "x").normalization == wanted


def test_a_processor_that_does_not_normalise():
    """transformers' MobileViT writes means, which it does not use."""
    stated = {"image_processor_type": "MobileViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    assert read_source_settings(stated, "x").normalization == "zero_to_one"
    assert read_source_settings(stated | {"do_normalize": True}, "x").normalization == "minus_one_to_one"
    assert read_source_settings(stated | {"do_rescale": False}, "x").normalization == ""


@pytest.mark.parametrize(
    ("stated", "names"),
    [
        ({"id2label": {"1": "cat", "0": "dog"}}, ("dog", "cat")),
        ({"id2label": {"1": "cat", "2": "dog"}}, ()),
        ({"CLASSES": ["road", "sky"]}, ("road", "sky")),
        ({"dataset_meta": {"classes": ("road", "sky")}}, ("road", "sky")),
        ({"classes": 21}, ()),
        ({"classes": ["road", "road"]}, ()),
    ],
)
def test_class_names(stated, names):
    assert read_source_settings(stated, "x").class_names == names


@pytest.mark.parametrize(
    "stated",
    [{}, {"output_stride": 12}, {"output_stride": True}, {"output_stride": [8]}, {"decoder_atrous_rates": [6, 0]},
     {"atrous_rates": 6}, {"atrous_rates": [10**9]}, {"model": "deeplab"}],
)  # fmt: skip
def test_whatever_is_of_another_kind_states_nothing(stated):
    assert read_source_settings(stated, "x") == NOTHING_STATED


def test_what_no_array_shows_of_a_resnet():
    assert read_source_settings({"downsample_in_bottleneck": True}, "x").strided_conv == "conv1"
    assert read_source_settings({"downsample_in_bottleneck": False}, "x").strided_conv == ""
    assert "first stage" in read_source_settings({"downsample_in_first_stage": True}, "x").foreign
    for name in ("resnetblur50", "resnetaa50", "tu-resnetaa101d"):
        assert "averages or blurs" in read_source_settings({"architecture": name}, "x").foreign
    assert read_source_settings({"architecture": "resnet50"}, "x").foreign == ""


def test_a_choice_counts_more_where_there_is_one():
    chosen = SourceSettings(output_stride=16, align_corners=False)
    stated = SourceSettings(output_stride=8, class_names=("a",), align_corners=True)
    assert chosen.over(stated) == SourceSettings(output_stride=16, class_names=("a",), align_corners=False)
