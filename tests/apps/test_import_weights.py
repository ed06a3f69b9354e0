"""Someone else's weights by the command's way: into a workdir, into a start of training, and refused where wrong."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import traverse_util
from foreign_network import NUM_CLASSES, draw, shapes_of, small_network

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.trained import read_config
from deeplab_jax.apps.import_weights import (
    adopt_model,
    import_checkpoint,
    pretrained_variables,
)
from deeplab_jax.apps.modes.import_ import import_weights
from deeplab_jax.config import Config, PartConfig, PretrainedConfig
from deeplab_jax.types import UserError


@pytest.fixture
def foreign(tmp_path, rng):
    """(file, its arrays by our paths, and by its own names)."""
    ours, theirs = draw(rng, shapes_of(small_network()))
    file = tmp_path / "theirs.npz"
    np.savez(file, **theirs)
    return file, ours, theirs


@pytest.fixture
def config():
    config = Config()
    config.data.dataset, config.data.batch_size, config.data.crop_size = "shapes", 8, (33, 33)
    return config


@pytest.mark.parametrize("layout", ["transformers", ""])
def test_a_file_becomes_the_network_that_it_was(layout, foreign):
    file, ours, _ = foreign
    config, variables = import_checkpoint(str(file), layout=layout)
    assert (config.num_classes, config.backbone.args["width"], config.output_stride) == (NUM_CLASSES, 0.25, 16)
    flat = traverse_util.flatten_dict(variables, sep="/")
    assert flat.keys() == ours.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(flat[path], value, err_msg=path)


def test_an_imported_workdir_serves_whatever_config_comes_with_it(foreign, config, tmp_path, capsys):
    file, ours, _ = foreign
    workdir = tmp_path / "run"
    import_weights(config, workdir, str(file))
    said = capsys.readouterr()
    assert "layout transformers" in said.out
    assert "images are computed at their own size" in said.err
    assert read_config(workdir).inference.at_own_size
    assert json.loads((workdir / "imported.json").read_text())["source"] == str(file)
    info = open_data.find_info(config, workdir)
    assert info.num_classes == NUM_CLASSES

    other = Config()  # another network, until the workdir is asked
    adopted = adopt_model(other, workdir, {"model.output_stride": 8, "model.head.args.dropout": 0.5, "seed": 3})
    assert adopted.model.backbone.name == "mobilenet_v2.mobilenet_v2"
    assert adopted.model.output_stride == 8
    assert adopted.model.head.args["dropout"] == 0.5
    assert adopted.inference.at_own_size
    assert not adopt_model(other, workdir, {"inference.bucket": 64}).inference.at_own_size
    variables = network.load_variables(adopted, network.build(adopted, info), workdir)
    kernel = variables["params"]["backbone"]["block3"]["expand"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, ours["params/backbone/block3/expand/conv/kernel"])

    with pytest.raises(UserError, match="holds checkpoints already: choose a new --workdir"):
        import_weights(config, workdir, str(file))
    assert adopt_model(other, tmp_path, {}) is other


def test_another_number_of_classes_takes_all_but_the_last_layer(foreign):
    file, ours, _ = foreign
    start = PretrainedConfig(source=str(file), layout="transformers", scope="fitting")
    config = dataclasses.replace(small_network(), num_classes=9, pretrained=start)
    target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(config))
    loaded, report, folded = pretrained_variables(config, target)
    assert not folded
    assert report.missing == ("params/head/logits/bias", "params/head/logits/kernel")
    assert len(report.misshapen) == 2
    assert "segmentation_head.classifier.convolution.weight: (1, 1, 8, 4)" in str(report)
    assert not loaded["params"]["head"]["logits"]["kernel"].any()
    np.testing.assert_array_equal(
        loaded["params"]["head"]["aspp"]["aspp0"]["conv"]["kernel"], ours["params/head/aspp/aspp0/conv/kernel"]
    )

    start = dataclasses.replace(start, scope="model")
    with pytest.raises(UserError, match=r"does not fit the network: .*misshapen: segmentation_head.classifier"):
        pretrained_variables(dataclasses.replace(config, pretrained=start), target)


def test_a_backbone_alone_leaves_the_head(foreign):
    file, _, _ = foreign
    start = PretrainedConfig(source=str(file), layout="transformers")
    head = PartConfig("v3plus.v3plus", {"aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4})
    config = dataclasses.replace(small_network(), head=head, pretrained=start)
    target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(config))
    loaded, report, _ = pretrained_variables(config, target)
    assert report.is_complete
    assert loaded["params"]["backbone"]["stem"]["conv"]["kernel"].any()
    assert not loaded["params"]["head"]["logits"]["kernel"].any()


@pytest.mark.parametrize(
    ("changes", "scope", "words"),
    [
        ({"align_corners": False}, "model", r"align_corners=False: .* need True"),
        ({"normalization": "imagenet"}, "backbone", r"normalization='imagenet': .* need 'minus_one_to_one'"),
        ({"head": PartConfig("aspp.aspp", {"aspp_channels": 8})}, "model", r"head\.args\.atrous_rates=.* need \(\)"),
        ({"head": PartConfig("v3plus.v3plus")}, "model", r"head\.name='v3plus\.v3plus': .* need 'aspp\.aspp'"),
    ],
)
def test_a_config_that_would_compute_something_else_is_refused(changes, scope, words, foreign):
    start = PretrainedConfig(source=str(foreign[0]), layout="transformers", scope=scope)
    config = dataclasses.replace(small_network(), pretrained=start, **changes)
    with pytest.raises(UserError, match=words):
        pretrained_variables(config, {})


def test_a_wrong_layout_suggests_the_right_one(foreign):
    file, _, _ = foreign
    with pytest.raises(UserError, match=r"not of layout 'torchvision' .*; its names are those of layout transformers"):
        import_checkpoint(str(file), layout="torchvision")
    with pytest.raises(UserError, match=r"layout 'torchvison': there are .*torchvision"):
        import_checkpoint(str(file), layout="torchvison")


def test_names_that_nobody_knows(tmp_path):
    np.savez(tmp_path / "odd.npz", weight=np.zeros(3))
    with pytest.raises(UserError, match="no layout fits its names; say which with --layout=NAME, one of"):
        import_checkpoint(str(tmp_path / "odd.npz"), layout="")


def test_a_missing_and_a_surplus_array_are_named(foreign, tmp_path):
    _, _, theirs = foreign
    arrays = dict(theirs)
    arrays["surprise"] = arrays.pop("mobilenet_v2.layer.3.conv_3x3.convolution.weight")
    np.savez(tmp_path / "broken.npz", **arrays)
    words = r"missing: params/backbone/block4/depthwise/conv/depthwise_kernel.*unexpected: surprise"
    with pytest.raises(UserError, match=words):
        import_checkpoint(str(tmp_path / "broken.npz"), layout="transformers")


def test_a_backbone_alone_is_no_network(foreign, tmp_path):
    _, _, theirs = foreign
    arrays = {name: array for name, array in theirs.items() if not name.startswith("segmentation_head")}
    path = tmp_path / "backbone.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"holds only a backbone .*pretrained\.source="):
        import_checkpoint(str(path), layout="transformers")


def test_ones_own_run_is_a_start_for_another(foreign, config, tmp_path):
    """All that fits of a workdir, into a network of other classes."""
    file, ours, _ = foreign
    import_weights(config, tmp_path / "first", str(file))
    start = PretrainedConfig(source=str(tmp_path / "first"), layout="deeplab_jax", scope="fitting")
    model = dataclasses.replace(small_network(), num_classes=9, pretrained=start)
    target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(model))
    loaded, report, _ = pretrained_variables(model, target)
    assert report.missing == ("params/head/logits/bias", "params/head/logits/kernel")
    np.testing.assert_array_equal(
        loaded["batch_stats"]["backbone"]["stem"]["norm"]["var"], ours["batch_stats/backbone/stem/norm/var"]
    )


def test_a_source_must_be_given(config, tmp_path):
    with pytest.raises(UserError, match="give --source=PATH"):
        import_weights(config, tmp_path / "run", "")
    assert not (tmp_path / "run").exists()


def test_a_wrapped_file_is_a_start_too(foreign, tmp_path, capsys):
    _, ours, theirs = foreign
    path = tmp_path / "wrapped.npz"
    np.savez(path, **{f"net.module.{name}": array for name, array in theirs.items()})
    start = PretrainedConfig(source=str(path), layout="transformers")
    model = dataclasses.replace(small_network(), pretrained=start)
    target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(model))
    loaded, _, _ = pretrained_variables(model, target)
    kernel = loaded["params"]["backbone"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, ours["params/backbone/stem/conv/kernel"])
    assert "its weights are those of 'net', names are read without 'module.'" in capsys.readouterr().err
