"""Networks in and out of files: what is written comes back bit for bit, and what is no network is refused in a line."""

from __future__ import annotations

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.apps.import_weights import pretrained_variables
from deeplab_jax.apps.modes.import_ import import_weights
from deeplab_jax.apps.network_files import Network, read_network, read_scores, write_network
from deeplab_jax.config import Config, PartConfig, PretrainedConfig
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.models.build import build_model
from deeplab_jax.palettes import voc_palette
from deeplab_jax.train.checkpoint import find_checkpoint
from deeplab_jax.types import DatasetInfo, UserError
from deeplab_jax.weights.formats.safetensors_file import read, read_metadata, write


def _config(**changes):
    backbone = PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.25})
    head = PartConfig("aspp.aspp", {"atrous_rates": (), "aspp_channels": 8})
    fields = {"backbone": backbone, "head": head, "num_classes": 3, "normalization": "minus_one_to_one", **changes}
    return dataclasses.replace(Config().model, **fields)


def _info(**changes):
    fields = {"class_names": ("soil", "crop", "weed"), "palette": voc_palette(3), "splits": {}, **changes}
    return DatasetInfo(**{"name": "field", "num_classes": 3, "ignore_label": 255, **fields})


def _drawn(shapes, rng):
    """Random weights; variances are positive."""
    drawn = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: abs(leaf) if path[-1].key == "var" else leaf, drawn)


@pytest.fixture
def network(rng):
    config = _config()
    model = build_model(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3), jnp.uint8)))
    return Network(config, _info(), _drawn(shapes, rng))


@pytest.fixture
def file(network, tmp_path):
    (path,) = write_network(tmp_path / "mine.safetensors", network)
    return path


def assert_same(read, network):
    info = network.info
    assert read.config == dataclasses.replace(network.config, num_classes=info.num_classes, task=info.task)
    assert read.info == network.info
    assert jax.tree.structure(read.variables) == jax.tree.structure(network.variables)
    for ours, theirs in zip(jax.tree.leaves(read.variables), jax.tree.leaves(network.variables), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


def test_a_network_comes_back(network, file):
    read = read_network(str(file))
    assert_same(read, network)
    assert read.notes == ()


def test_a_workdir_gives_its_best_checkpoint(network, tmp_path, file):
    """With the classes of its data set, whatever the config says of their number."""
    config = Config()
    config.data.dataset, config.data.crop_size, config.data.batch_size = "shapes", (33, 33), 8
    import_weights(config, tmp_path / "run", str(file))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["model"]["num_classes"] = 0
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert_same(read_network(str(tmp_path / "run")), network)


def test_what_decides_a_mask_comes_back_and_what_multiplies_its_cost_does_not(network, tmp_path):
    settings = {"threshold": (0.3, 0.5, 0.7), "window": (65, 65), "resize_shorter": 64, "pad_to": (65, 97)}
    inference = InferenceConfig(scales=(0.5, 1.0), flip=True, **settings)
    write_network(tmp_path / "mine.safetensors", network._replace(inference=inference))
    assert read_network(str(tmp_path / "mine.safetensors")).inference == InferenceConfig(**settings)


def test_scores_are_quoted_for_the_checkpoint_that_they_are_of(file, tmp_path):
    config = Config()
    config.data.dataset, config.data.crop_size, config.data.batch_size = "shapes", (33, 33), 8
    run = tmp_path / "run"
    import_weights(config, run, str(file))
    best = find_checkpoint(run)
    scores = {"mean_iou": 0.5, "num_images": 2}
    for named, quoted in (
        ({}, True),
        ({"checkpoint": f"checkpoints/{best.name}"}, True),
        ({"checkpoint": "/x/7"}, False),
    ):
        (run / "scores.json").write_text(json.dumps(scores | named))
        assert (read_scores(run) is not None) == quoted
    assert read_scores(run, str(best)) is None
    (run / "scores.json").write_text(json.dumps(scores | {"checkpoint": str(best), "step": 7}))
    write_network(tmp_path / "card", read_network(str(run)))
    assert "mean_iou 0.5000 on 2 images, at training step 7." in (tmp_path / "card" / "README.md").read_text()


def test_an_own_file_is_a_start_for_training(network, file):
    start = PretrainedConfig(source=str(file), layout="deeplab_jax", scope="fitting")
    config = dataclasses.replace(network.config, num_classes=9, pretrained=start)
    model = build_model(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3), jnp.uint8)))
    loaded, report, _ = pretrained_variables(
        config, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    )
    assert report.missing == ("params/head/logits/bias", "params/head/logits/kernel")
    ours, theirs = (tree["params"]["head"]["aspp"]["aspp0"]["conv"]["kernel"] for tree in (loaded, network.variables))
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match=r"normalization='imagenet': .* need 'minus_one_to_one'"):
        pretrained_variables(dataclasses.replace(config, normalization="imagenet"), {})


def test_a_file_says_what_is_needed_and_nothing_else(file):
    assert {name.split("/")[0] for name in read(file)} == {"params", "batch_stats"}
    metadata = read_metadata(file)
    assert list(metadata) == ["deeplab_jax"]
    described = json.loads(metadata["deeplab_jax"])
    assert set(described) == {"format_version", "version", "layout", "model", "info", "inference"}
    assert not {"pretrained", "remat"} & set(described["model"])
    assert described["info"]["class_names"] == ["soil", "crop", "weed"]


def test_channels_of_ones_own_and_their_statistics_come_back(rng, tmp_path):
    """Normalised by the data set's statistics, which are in no setting of the model."""
    mean, std = (1.0, 2.0, 3.0, 4.5, 0.25), (0.5, 1.0, 2.0, 4.0, 8.0)
    info = _info(channels=5, dtype="uint16", channel_mean=mean, channel_std=std)
    config = _config(normalization="dataset", num_classes=0)
    model = build_model(config, info)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 5), jnp.uint8)))
    variables = _drawn(shapes, rng)
    network = Network(config, info, variables)
    write_network(tmp_path / "bands.safetensors", network)
    read = read_network(str(tmp_path / "bands.safetensors"))
    assert_same(read, network)
    assert build_model(read.config, read.info).normalization.mean == mean


def test_a_file_that_cannot_be_written_leaves_the_old_one(network, file):
    before = file.read_bytes()
    with pytest.raises(UserError, match="cannot write"):
        write_network(file / "inside.safetensors", network)
    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def _rewrite(file, change):
    """The file with its description changed."""
    described = json.loads(read_metadata(file)["deeplab_jax"])
    text = change(described) or json.dumps(described)
    write(file, read(file), {"deeplab_jax": text})
    return str(file)


def _set(path, value):
    def change(described):
        *parents, last = path.split(".")
        for name in parents:
            described = described[name]
        described[last] = value

    return change


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: "[1]", "the whole is no object"),
        (lambda _: "{", "damaged metadata"),
        (lambda _: "[" * 100_000, "nested too deeply"),
        (_set("format_version", "1"), "format_version '1' is no whole number"),
        (_set("layout", 3), "layout is no text"),
        (_set("layout", "torchvison"), "says that it is of layout 'torchvison'"),
        (_set("model", []), "model is no object"),
        (_set("model.output_stride", "16"), "model.output_stride='16': must be"),
        (_set("model.output_stride", 12), "config.model.output_stride=12: must be"),
        (_set("model.align_corners", 1), "model.align_corners=1: must be"),
        (_set("model.scales", 1.0), "model.scales=1.0: must be"),
        (_set("model.backbone", "resnet"), "model.backbone='resnet': must be"),
        (_set("model.backbone.name", "os.system"), "no module 'os'"),
        (_set("model.backbone.args.width", {}), "config.model: unsupported"),
        (_set("model.backbone.args.width", float("nan")), "NaN is no number"),
        (_set("model.backbone.args.width", "wide"), "its settings build no network|config.model"),
        (_set("model.backbone.args.depth", 3), "takes no argument 'depth'"),
        (_set("model.attention", True), "model.attention is no setting of this version"),
        (_set("model.normalization", "dataset"), "channel_mean is missing"),
        (_set("model.num_classes", 4), "model.num_classes=4, and 3 classes in info"),
        (_set("info", None), "info is no object"),
        (_set("info.num_classes", 2**40), "info.num_classes is no whole number"),
        (_set("info.class_names", ["soil", "crop"]), "one entry for each class"),
        (_set("info.class_names", [1, 2, 3]), "info.class_names is no list"),
        (_set("info.palette", [[0, 0, 0], [1, 1, 1], [1, 1, 256]]), "each from 0 to 255"),
        (_set("info.palette", 3), "info.palette is no list"),
        (_set("info.dtype", "object"), "info.dtype none of"),
        (_set("info.channel_std", [0.0, 1.0, 1.0]), "channel_std positive"),
        (_set("info.channel_mean", [1.0]), "one number for each channel"),
        (_set("info.owner", "me"), "info must have"),
        (_set("inference.bucket", 0), "inference.bucket=0: must be"),
        (_set("inference.pad_to", (1, 2**30)), "padded by more than"),
    ],
)
def test_a_description_that_lies_ends_in_a_line(change, words, file):
    with pytest.raises(UserError, match=words) as caught:
        read_network(_rewrite(file, change))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("path", ["model.backbone.name", "model.head.name", "model.crf.name", "layout"])
def test_a_file_does_not_choose_what_is_imported(path, file, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"asks for 'trap:make', which is not of this project: import trap before"):
        read_network(_rewrite(file, _set(path, "trap:make")))
    with pytest.raises(UserError, match="asks for 'os:system'"):
        read_network(_rewrite(file, _set(path, "os:system")))


def test_a_part_from_elsewhere_comes_back_once_it_is_imported(network, tmp_path, monkeypatch):
    source = "from deeplab_jax.heads.aspp import ASPPHead\n\n\nclass MyHead(ASPPHead):\n    pass\n"
    (tmp_path / "head_of_mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    config = dataclasses.replace(network.config, head=PartConfig("head_of_mine:MyHead", network.config.head.args))
    write_network(tmp_path / "mine.safetensors", network._replace(config=config))
    with pytest.raises(UserError, match="import head_of_mine before you load the file"):
        read_network(str(tmp_path / "mine.safetensors"))
    importlib.import_module("head_of_mine")
    assert_same(read_network(str(tmp_path / "mine.safetensors")), network._replace(config=config))


def test_a_newer_file_asks_for_a_newer_version(file):
    with pytest.raises(UserError, match=r"was written by deeplab_jax '9\.1', whose format 7 .*: update deeplab_jax"):
        read_network(_rewrite(file, lambda described: described.update(format_version=7, version="9.1")))


def test_own_names_without_metadata_have_a_remedy(file):
    write(file, read(file), {})
    for layout in ("", "deeplab_jax"):
        with pytest.raises(UserError, match=r"names without the metadata .*; write it with Model\.save, or .*export"):
            read_network(str(file), layout=layout)


def test_values_that_are_not_finite_are_refused(network, file):
    arrays = {name: np.array(array) for name, array in read(file).items()}
    arrays["params/head/logits/bias"][1] = np.nan
    write(file, arrays, read_metadata(file))
    with pytest.raises(UserError, match="'params/head/logits/bias' holds values that are not finite"):
        read_network(str(file))
    network.variables["params"]["head"]["logits"]["bias"][1] = np.inf
    with pytest.raises(UserError, match="'params/head/logits/bias' holds values that are not finite"):
        write_network(file, network)


def test_a_folder_has_a_card_and_comes_back(network, tmp_path):
    scored = network._replace(scores={"mean_iou": 0.75, "num_images": 7, "protocol": {"scales": [1.0]}})
    written = write_network(tmp_path / "field", scored)
    assert [path.name for path in written] == ["model.safetensors", "README.md"]
    card = written[1].read_text()
    for words in ("license: unknown", "soil, crop, weed", "mean_iou 0.7500 on 7 images", 'dl.load("field")'):
        assert words in card
    assert_same(read_network(str(tmp_path / "field")), network)
    write_network(tmp_path / "field", network)  # over its own
    assert "Not scored" in written[1].read_text()


def test_a_card_states_the_license(network, tmp_path):
    _, card = write_network(tmp_path / "field", network._replace(license_id="apache-2.0"))
    assert "\nlicense: apache-2.0\n" in card.read_text()
    assert "Not stated" not in card.read_text()
    with pytest.raises(UserError, match="must be an identifier as hubs have it"):
        write_network(tmp_path / "other", network._replace(license_id="mine\npipeline_tag: other"))
    assert not (tmp_path / "other").exists()


def test_a_strangers_readme_is_not_overwritten(network, tmp_path):
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(UserError, match=r"README\.md: is no model card of this project's"):
        write_network(tmp_path, network)
    assert [each.name for each in tmp_path.iterdir()] == ["README.md"]


def test_another_suffix_is_answered(network, tmp_path):
    with pytest.raises(UserError, match=r"written as \.safetensors files; call it mine\.safetensors"):
        write_network(tmp_path / "mine.pth", network)


def test_what_is_none_of_theirs_is_refused_by_its_first_setting(network, tmp_path):
    for layout, words in {
        "torchvision": r"layout 'torchvision': no network there has head aspp\.aspp on backbone mobilenet_v2",
        "timm": r"layout 'timm': no network there has backbone mobilenet_v2\.mobilenet_v2",
        "smp": r"layout 'smp': no network there has .* atrous rates \(\): .*; write it with our own names instead",
        "mmseg": r"layout 'mmseg': networks can be written as smp, timm, torchvision, or with our own names",
    }.items():
        with pytest.raises(UserError, match=words):
            write_network(tmp_path / "theirs", network, layout=layout)
    assert not (tmp_path / "theirs").exists()


def test_another_layout_than_its_own_is_refused(file):
    with pytest.raises(UserError, match="not of layout 'smp'; it says that it is of 'deeplab_jax'"):
        read_network(str(file), layout="smp")


def test_a_misspelt_path_is_answered_with_the_near_ones(file):
    with pytest.raises(UserError, match=r"no such file or folder; did you mean .*mine\.safetensors\?"):
        read_network(str(file.with_name("mime.safetensors")))
    with pytest.raises(UserError, match="no such file or folder; name a file"):
        read_network(str(file.parent / "missing" / "else"))


def test_a_missing_array_is_named(network, file):
    arrays = read(file)
    arrays.pop("params/head/logits/bias")
    write(file, arrays, read_metadata(file))
    with pytest.raises(UserError, match="missing: params/head/logits/bias"):
        read_network(str(file))
