"""The schema's checks: each setting that cannot work is one line with its field, its value and the remedy."""

from __future__ import annotations

import ast
import json

import pytest

from deeplab_jax.config import AddedLoss, Config, ModelConfig, PartConfig, differences, from_dict, to_dict
from deeplab_jax.types import UserError
from deeplab_jax.validation import validate, warnings_for


def _with(path, value):
    config = Config()
    *parents, field = path.split(".")
    node = config
    for parent in parents:
        node = getattr(node, parent)
    setattr(node, field, value)
    return config


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.output_stride", 12, "8, 16 or 32"),
        ("model.normalization", "caffe", "imagenet, minus_one_to_one"),
        ("model.compute_dtype", "float16", "float32 or bfloat16"),
        ("model.batch_norm.decay", 1.0, r"in \[0, 1\)"),
        ("model.batch_norm.group_size", 3, "a divisor of the 16 images"),
        ("data.crop_size", (15, 513), "each at least the output stride 16"),
        ("data.batch_size", 0, "at least 1"),
        ("data.min_scale", 3.0, r"in \(0, data.max_scale\]"),
        ("data.max_class_share", 0.0, r"in \(0, 1\]"),
        ("data.crop_tries", 0, "at least 1"),
        ("data.copy_paste", 1.5, "a probability"),
        ("data.prepared_form", "fast", "files or raw"),
        ("data.num_workers", -1, "0 .one for each core. or more"),
        ("loss.top_k_fraction", 0.0, r"in \(0, 1\]"),
        ("loss.class_weights", (1.0, -1.0), "not negative"),
        ("optimizer.name", "sdg", "sgd, adamw, lars, lamb or"),
        ("optimizer.learning_rate", 0.0, "positive"),
        ("train.num_steps", 0, "at least 1"),
        ("train.ema_decay", 1.0, r"in \[0, 1\)"),
        ("train.accumulation_steps", 3, "a divisor of data.batch_size=16"),
        ("inference.scales", (), "one or more positive factors"),
        ("inference.pad_to", (0, 513), r"\(0, 0\) for buckets"),
        ("inference.fuse", "sum", "mean or max"),
        ("inference.compute_dtype", "float16", "'', float32 or bfloat16"),
        ("inference.window", (0, 769), r"\(0, 0\) for whole images"),
        ("inference.stride", (513, 513), "so that no pixel is left out"),
        ("inference.resize_longer", 2048, "inference.resize_shorter, which must be set"),
        ("inference.measures.trimap_around", "edges", "auto, void or labels"),
        ("mesh.data", -1, "0 for all"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_remedy(path, value, words):
    with pytest.raises(UserError, match=words) as error:
        validate(_with(path, value))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"config.{path}")


def test_the_defaults_are_valid():
    validate(Config())


@pytest.mark.parametrize(
    ("path", "value", "better"),
    [
        ("inference.pad_to", (360, 480), "(369, 481)"),
        ("inference.pad_to", (129, 160), "(129, 161)"),
        ("inference.window", (512, 512), "(513, 513)"),
        ("inference.bucket", 40, "48"),
        ("export.size", (1024, 2048), "(1025, 2049)"),
        ("data.crop_size", (512, 480), "(513, 481)"),
    ],
)
def test_a_size_that_misaligns_corners_is_named_with_the_next_that_does_not(path, value, better):
    config = _with(path, value)
    validate(config)
    (warning,) = warnings_for(config, training=path.startswith("data"))
    assert warning.startswith(f"config.{path}={value}: ")
    assert f"at output stride 16 {better} " in warning
    config.model.align_corners = False
    assert not warnings_for(config)


@pytest.mark.parametrize(("crop", "stride", "better"), [((225, 321), 16, "(3, 5, 8)"), ((129, 129), 8, "(2, 3, 5)")])
def test_rates_beyond_the_features_of_a_crop_are_named_in_training(crop, stride, better):
    config = _with("data.crop_size", crop)
    config.model.output_stride = stride
    (warning,) = warnings_for(config, training=True)
    assert warning.startswith("config.model.head.args.atrous_rates=(6, 12, 18): a crop of")
    assert f"{better} covers as much" in warning
    assert not warnings_for(config)
    config.inference.pad_to = crop  # then no image is larger than what was trained on
    assert not warnings_for(config, training=True)
    config.inference.pad_to = (0, 0)
    config.model.head.args["atrous_rates"] = ast.literal_eval(better)
    assert not warnings_for(config, training=True)


def test_sizes_that_keep_corners_raise_no_warnings():
    config = _with("inference.pad_to", (361, 481))
    config.model.output_stride = 8
    config.inference.window = (513, 513)
    config.inference.bucket = 1  # unused where images are padded to one size
    assert not warnings_for(config)


def test_weights_without_a_layout_are_refused():
    with pytest.raises(UserError, match=r"config\.model\.pretrained\.layout='': must be the name"):
        validate(_with("model.pretrained.source", "weights.npz"))


def test_groups_of_batch_norm_must_fit_into_a_slice_of_the_batch():
    config = _with("model.batch_norm.group_size", 8)
    validate(config)
    config.train.accumulation_steps = 4
    with pytest.raises(UserError, match="a divisor of the 4 images"):
        validate(config)


def test_a_part_that_cannot_be_found_is_named_by_its_field():
    config = Config(model=ModelConfig(head=PartConfig("v3plus.v3pls")))
    with pytest.raises(UserError, match=r"config\.model\.head: no 'v3pls' in .* did you mean 'v3plus'"):
        validate(config)


def test_differences_name_the_fields():
    changed = _with("optimizer.learning_rate", 0.01)
    assert differences(to_dict(Config()), to_dict(changed)) == ["optimizer.learning_rate: 0.007 -> 0.01"]


def test_a_config_read_from_json_is_no_different():
    read = to_dict(Config())
    read["data"]["crop_size"] = [513, 513]
    assert differences(to_dict(Config()), read) == []


def test_a_config_comes_back_from_json_also_from_that_of_another_version():
    config = _with("model.scales", (1.0, 0.5))
    config.loss.added = (AddedLoss("dice.soft_dice", 2.0, {"smooth": 1.0}),)
    settings = json.loads(json.dumps(to_dict(config)))
    assert from_dict(settings) == config
    del settings["inference"], settings["data"]["prefetch"], settings["loss"]["added"][0]["args"]["smooth"]
    settings["train"]["of_another_version"] = 1
    config.loss.added[0].args.clear()
    assert from_dict(settings) == config


def test_pasting_and_augmenting_on_the_device_exclude_each_other():
    config = _with("data.copy_paste", 0.5)
    config.data.device_augmentation = True
    with pytest.raises(UserError, match=r"config\.data\.device_augmentation=True: must be False with data\.copy_paste"):
        validate(config)
