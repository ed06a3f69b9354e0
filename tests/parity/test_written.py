"""Networks written with other systems' names: theirs to the last array, ours again bit for bit, and the same logits."""

from __future__ import annotations

import dataclasses
import re

import flax.traverse_util
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from both_sides import model_output, recognized
from drawn_arrays import drawn_images, drawn_weight
from parity_cases import CASES
from torch_peers import import_peer, to_torch

from deeplab_jax.apps.assembly.model_card import model_card
from deeplab_jax.apps.assembly.open_data import numbered_classes
from deeplab_jax.apps.assembly.peer_network import find_peer, is_same, peer_arrays
from deeplab_jax.apps.import_weights import model_config, read_file
from deeplab_jax.apps.network_files import Network, read_network, write_network
from deeplab_jax.config import PartConfig
from deeplab_jax.heads.aspp import rates_in_cells
from deeplab_jax.models.build import build_model
from deeplab_jax.types import UserError
from deeplab_jax.weights.load import load_weights
from deeplab_jax.weights.rules import names_of

_HEAD = {"name": "aspp.aspp", "args": {"atrous_rates": (), "aspp_channels": 8}}  # around a backbone alone
# Golden case -> layout that writes it.
WRITTEN = {
    "torchvision_deeplabv3_resnet50": "torchvision",
    "torchvision_deeplabv3_resnet101": "torchvision",
    "torchvision_deeplabv3_mobilenet_v3_large": "torchvision",
    "torchvision_lraspp_mobilenet_v3_large": "torchvision",
    "torchvision_fcn_resnet50": "torchvision",
    "torchvision_fcn_resnet101": "torchvision",
    "smp_deeplabv3_resnet50": "smp",
    "smp_deeplabv3_mobilenet_v2": "smp",
    "smp_deeplabv3plus_resnet50": "smp",
    "smp_deeplabv3plus_resnet101": "smp",
    "smp_deeplabv3plus_tu_resnet50": "smp",
    "smp_deeplabv3plus_mobilenet_v2": "smp",
    "smp_deeplabv3plus_tu_xception41": "smp",
    "smp_deeplabv3plus_tu_xception65": "smp",
    "smp_deeplabv3_resnet34": "smp",
    "smp_deeplabv3plus_resnet34": "smp",
    "smp_deeplabv3plus_resnext50_32x4d": "smp",
    "smp_deeplabv3plus_tu_resnet34": "smp",
    "smp_deeplabv3plus_tu_resnet50d": "smp",
    "timm_resnet50": "timm",
    "timm_resnet50d": "timm",
    "timm_xception41": "timm",
    "timm_xception65": "timm",
    "timm_xception71": "timm",
}


def _settings(name, **changes):
    """Settings of ours for the network of a golden file."""
    golden = golden_files.read(name)
    model = recognized(golden.layout, golden.shapes).model
    if "head" not in model:
        model = {**model, "head": _HEAD, "num_classes": 21, "output_stride": 16}
    return model_config({**model, **changes})


def _stand_ins(config):
    model = build_model(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 65, 65, 3), jnp.uint8)))
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), dict(shapes))


def _flat(variables):
    return {path: np.asarray(leaf) for path, leaf in flax.traverse_util.flatten_dict(variables, sep="/").items()}


@pytest.mark.parametrize("name", WRITTEN)
def test_names_and_shapes_are_theirs(name):
    """Those of the real peer's state dict, which the golden file was made with; but for a classifier's."""
    config, golden = _settings(name), golden_files.read(name)
    peer = find_peer(config, 3, WRITTEN[name])
    shapes = {key: array.shape for key, array in peer_arrays(_flat(_stand_ins(config)), peer).items()}
    classifier = r"(head\.)?fc\..*" if WRITTEN[name] == "timm" else ""
    assert shapes == {key: tuple(shape) for key, shape in golden.shapes.items() if not re.fullmatch(classifier, key)}


def _drawn(config, layout, damped):
    """A network of ours, its weights drawn by the names that they have there, so that variances are kept."""
    peer, zeros = find_peer(config, 3, layout), _stand_ins(config)
    names = names_of({path: leaf for path, leaf in _flat(zeros).items() if _is_theirs(path, peer)}, peer.layout.rules)
    arrays = {name: drawn_weight(name, leaf.shape, damped) for name, leaf in names.items()}
    scope = "model" if "head" in peer.layout.model else "backbone"
    variables, _ = load_weights(arrays, peer.layout, zeros, scope=scope)
    return Network(config, numbered_classes("drawn", config.num_classes), jax.tree.map(np.array, variables))


def _is_theirs(path, peer):
    return "head" in peer.layout.model or path.split("/")[1] == "backbone"


@pytest.mark.parametrize(
    "name", ["torchvision_lraspp_mobilenet_v3_large", "smp_deeplabv3_mobilenet_v2", "torchvision_deeplabv3_resnet50"]
)
def test_what_is_written_is_read_bit_for_bit(name, tmp_path):
    """By our own metadata, and by the names alone as of anyone's file."""
    network = _drawn(_settings(name, num_classes=5), WRITTEN[name], CASES[name].damped)
    write_network(tmp_path / "theirs", network, layout=WRITTEN[name])
    read = read_network(str(tmp_path / "theirs"))
    config = dataclasses.replace(network.config, task=network.info.task)
    if WRITTEN[name] != "timm" and (rates := rates_in_cells(config.head.args, config.output_stride)):
        in_cells = {"atrous_rates": rates, "rates_output_stride": 0}  # which hold at every stride there
        config.head = dataclasses.replace(config.head, args={**config.head.args, **in_cells})
    assert (read.config, read.info, read.notes) == (config, network.info, ())
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, **read_file(str(tmp_path / "theirs"), "").arrays)
    unnamed = read_network(str(foreign), layout=WRITTEN[name])
    assert len(unnamed.notes) == 1
    assert "the file does not say" in unnamed.notes[0]
    wanted = _flat(network.variables)
    for found in (_flat(read.variables), _flat(unnamed.variables)):
        assert found.keys() == wanted.keys()
        for path, array in wanted.items():
            np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_a_backbone_alone_says_where_it_starts_training(tmp_path):
    network = _drawn(_settings("timm_xception41"), "timm", CASES["timm_xception41"].damped)
    _, card = write_network(tmp_path / "theirs", network, layout="timm")
    assert 'timm.create_model("xception41", num_classes=0, output_stride=16, in_chans=3)' in card.read_text()
    assert "pretrained.layout=timm" in card.read_text()
    peer = find_peer(network.config, 3, "timm")
    assert is_same(read_file(str(tmp_path / "theirs"), "").arrays, _flat(network.variables), peer)
    with pytest.raises(UserError, match="holds only a backbone"):
        read_network(str(tmp_path / "theirs"))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("torchvision_deeplabv3_resnet50", {"backbone.multi_grid": (1, 2, 4)}, r"args.multi_grid is \(1, 2, 4\) here"),
        ("torchvision_deeplabv3_resnet50", {"backbone.stem": "v1c"}, "args.stem is 'v1c' here and 'plain' there"),
        ("torchvision_deeplabv3_resnet50", {"backbone.width": 0.5}, "args.width is 0.5 here and 1.0 there"),
        ("torchvision_deeplabv3_resnet50", {"head.atrous_rates": (2, 4, 6)}, "head.args.atrous_rates is"),
        ("torchvision_deeplabv3_resnet50", {"output_stride": 16}, "model.output_stride is 16 here and 8 there"),
        ("torchvision_deeplabv3_resnet50", {"align_corners": True}, "model.align_corners is True here"),
        ("torchvision_deeplabv3_resnet50", {"scales": (1.0, 0.5)}, "model.scales is"),
        ("torchvision_deeplabv3_resnet50", {"crf": PartConfig("crf_rnn.crf_rnn")}, "model.crf.name is"),
        ("torchvision_lraspp_mobilenet_v3_large", {"head.channels": 64}, "head.args.channels is 64 here and 128"),
        ("smp_deeplabv3plus_resnet50", {"auxiliary": PartConfig("auxiliary.auxiliary")}, "auxiliary.name is"),
        ("smp_deeplabv3plus_resnet50", {"output_stride": 32}, "no network there has output stride 32"),
        ("timm_resnet50", {"backbone.strided_unit": "last"}, "args.strided_unit is 'last' here and 'first' there"),
    ],
)
def test_the_first_setting_that_is_not_theirs_is_named(name, changes, words):
    config = _settings(name)
    for path, value in changes.items():
        part, _, argument = path.partition(".")
        if argument:
            part_config = getattr(config, part)
            value = PartConfig(part_config.name, {**part_config.args, argument: value})
        config = dataclasses.replace(config, **{part: value})
    with pytest.raises(UserError, match=words):
        find_peer(config, 3, WRITTEN[name])


def test_images_of_other_channels_are_not_torchvisions():
    with pytest.raises(UserError, match="images of 5 channels"):
        find_peer(_settings("torchvision_fcn_resnet50"), 5, "torchvision")


def test_what_changes_nothing_may_differ():
    config = _settings("smp_deeplabv3plus_resnet50", num_classes=7, normalization="caffe_mean")
    config.head.args["dropout"] = 0.0
    peer = find_peer(config, 3, "smp")
    assert "classes=7" in peer.constructor
    text = model_card(
        config, numbered_classes("drawn", 7), None, folder="theirs", layout="smp", peer=peer
    )  # the peer's user normalises
    assert "(pixel - [122.675, 116.669, 104.008]) / [1.0, 1.0, 1.0]" in text


# Also where the peer is built with other arguments than its defaults. A few networks in every run, of each system.
LIVE = [
    ("torchvision_lraspp_mobilenet_v3_large", {}),
    ("smp_deeplabv3_mobilenet_v2", {"num_classes": 5, "output_stride": 16}),
    ("timm_xception41", {"output_stride": 8}),
    *(
        pytest.param(name, changes, marks=pytest.mark.slow)
        for name, changes in (
            *((name, {}) for name in WRITTEN),
            ("smp_deeplabv3plus_mobilenet_v2", {"output_stride": 8}),
            ("smp_deeplabv3plus_resnet50", {"output_stride": 8}),
            ("smp_deeplabv3plus_tu_resnet50", {"output_stride": 8}),
            ("smp_deeplabv3plus_tu_xception41", {"output_stride": 8}),
            ("timm_resnet50", {"output_stride": 8}),
            ("timm_resnet50", {"output_stride": 32}),
            ("timm_xception41", {"output_stride": 32}),
        )
    ),
]


@pytest.mark.peer
@pytest.mark.parametrize(("name", "changes"), LIVE)
def test_the_peer_reads_it_and_computes_the_same(name, changes, tmp_path):
    """As the model card says: the constructor, `load_state_dict(strict=True)`, and the same logits at two sizes."""
    torch, layout = import_peer("torch"), WRITTEN[name]
    network = _drawn(_settings(name, **changes), layout, CASES[name].damped)
    write_network(tmp_path / "theirs", network, layout=layout)
    constructor = find_peer(network.config, 3, layout).constructor
    top = constructor.partition(".")[0]
    if layout == "torchvision":
        import_peer("torchvision.models.segmentation")
    module = eval(constructor, {top: import_peer(top)})
    load_file = pytest.importorskip("safetensors.torch").load_file
    module.load_state_dict(load_file(tmp_path / "theirs" / "model.safetensors"), strict=True)
    module.eval().requires_grad_(False)
    is_backbone = layout == "timm"
    ours = model_output("features" if is_backbone else "logits", build_model(network.config), network.variables)
    normalization = build_model(network.config).normalization
    mean, std = np.float32(normalization.mean), np.float32(normalization.std)
    # segmentation_models.pytorch takes multiples of the output stride alone.
    for size in ((48, 592), (32, 608)) if layout == "smp" else CASES[name].sizes:
        images = drawn_images(name, size)
        with torch.no_grad():
            x = to_torch((images.astype(np.float32) - mean) / std)
            theirs = module.forward_features(x) if is_backbone else module(x)
        theirs = (theirs["out"] if isinstance(theirs, dict) else theirs).numpy().transpose(0, 2, 3, 1)
        assert np.abs(ours(images) - theirs).max() < 1e-4 * theirs.std()
