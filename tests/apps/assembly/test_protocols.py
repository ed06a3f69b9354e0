"""Protocols by name: what they set, that a config can hold them, and one checkpoint under several at once."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly import several_protocols as app
from deeplab_jax.apps.assembly.evaluation import make_evaluator
from deeplab_jax.config import Config, InferenceConfig
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.inference import protocols
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import DatasetInfo, Example, UserError

NAMES = ("ground", "red", "green")
VARIABLES = {"params": {"one": jnp.ones(())}}


class FromRedChannel(nn.Module):
    """Predicts the class whose number, times 80, the red channel holds."""

    @nn.compact
    def __call__(self, images, *, train):
        one = self.param("one", nn.initializers.ones, ())
        red = jnp.asarray(images)[..., 0].astype(jnp.float32) / 80
        return -10 * one * (red[..., None] - jnp.arange(3.0)[None, None, None]) ** 2


@pytest.fixture
def dataset(rng):
    examples = []
    for k, size in enumerate([(20, 30), (24, 17)]):
        ids = np.kron(rng.integers(0, 3, (6, 8)), np.ones((4, 4), int))[: size[0], : size[1]].astype(np.uint8)
        image = np.repeat(80 * ids[..., None], 3, axis=-1)
        label = np.where(rng.random(size) < 0.9, ids, 255).astype(np.uint8)
        examples.append(Example(f"image{k}", image, label))
    info = DatasetInfo("toy", 3, 255, NAMES, ((0, 0, 0),) * 3, {"val": len(examples)})
    return Dataset(info, {"val": examples}.__getitem__)


@pytest.fixture
def config():
    config = Config()
    config.data.num_workers = 1
    config.inference.flip = True  # a run's own way, which no protocol keeps
    config.inference.measures.calibration = True
    return config


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_every_protocol_is_valid_and_says_where_it_is_from(config, name):
    changed = app.with_protocol(config, name)
    assert changed.inference.protocol == name
    assert changed.inference.measures.calibration
    assert config.inference.flip
    assert config.inference.protocol == ""
    protocol = protocols.find_protocol(name)
    assert protocol.source
    assert all(path.startswith(("inference.", "model.output_stride")) for path in protocol.settings)
    defaults = InferenceConfig()
    for field in dataclasses.fields(defaults):
        if f"inference.{field.name}" not in protocol.settings and field.name not in ("protocol", *app._KEPT):
            assert getattr(changed.inference, field.name) == getattr(defaults, field.name)


def test_every_protocol_is_in_the_docs():
    page = (pathlib.Path(__file__).resolve().parents[3] / "docs" / "evaluation.md").read_text()
    assert {name for name in protocols.PROTOCOLS if f"`{name}`" not in page} == set()


def test_the_papers_words_are_in_the_settings():
    settings = protocols.find_protocol("v3_val_os8_ms_flip").settings
    assert settings["model.output_stride"] == 8
    assert settings["inference.scales"] == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert settings["inference.flip"] is True
    assert protocols.find_protocol("v2_val_ms").settings["inference.fuse"] == "max"


@pytest.fixture
def run(config, dataset, monkeypatch, tmp_path, capsys):
    """names -> (workdir, what was printed), with the variables given instead of read."""
    monkeypatch.setattr(open_data, "open_dataset", lambda config: dataset)
    monkeypatch.setattr(network, "build", lambda config, info: FromRedChannel())
    monkeypatch.setattr(network, "load_variables", lambda *args: VARIABLES)
    monkeypatch.setattr(app, "find_checkpoint", lambda path: path / "checkpoints" / "7")
    small = {
        "plain": {"inference.bucket": 32, "inference.batch_size": 2},
        "resized": {"inference.resize_shorter": 41, "inference.resize_labels": True, "inference.bucket": 64},
        "back": {"inference.resize_shorter": 41, "inference.bucket": 64},
        "middle": {"inference.center_crop": (12, 10), "inference.bucket": 16, "inference.fuse": "max"},
        "windows": {"inference.window": (9, 12), "inference.bucket": 32, "inference.flip": True},
    }
    for name, settings in small.items():
        monkeypatch.setitem(protocols.PROTOCOLS, name, protocols.EvaluationProtocol(settings, f"the source of {name}"))

    def run(names):
        app.evaluate_protocols(config, tmp_path, "", names)
        return tmp_path, capsys.readouterr().out

    return run


def test_one_checkpoint_side_by_side(run, dataset):
    workdir, printed = run("plain, resized,back,middle,windows")
    summary = json.loads((workdir / "protocols.json").read_text())
    assert list(summary) == ["plain", "resized", "back", "middle", "windows"]
    num_pixels = {}
    for name, row in summary.items():
        scores = json.loads((workdir / f"scores_{name}.json").read_text())
        assert (workdir / f"per_image_{name}.json").exists()
        assert scores["protocol"]["name"] == name
        assert scores["mean_iou"] == row["mean_iou"]
        assert "calibration" in scores
        assert scores["speed"]["images_per_second"] > 0
        assert row["source"] == f"the source of {name}"
        num_pixels[name] = np.sum(scores["confusion"])
    assert not (workdir / "scores.json").exists()

    known = sum(int((example.label != 255).sum()) for example in dataset.open_split("val"))
    assert num_pixels["plain"] == num_pixels["back"] == num_pixels["windows"] == known
    assert summary["plain"]["mean_iou"] == summary["windows"]["mean_iou"] == 1.0  # a pixelwise network
    assert num_pixels["resized"] > 2 * known
    assert num_pixels["middle"] < 2 * 12 * 10
    assert 0.5 < summary["resized"]["mean_iou"] < 1.0  # pixels between two classes
    assert summary["resized"]["protocol"]["labels"] == "resized"
    assert summary["back"]["protocol"]["labels"] == "original"
    assert summary["back"]["protocol"]["resize_input"] == {"shorter": 41, "longer": 0, "antialias": True}
    assert summary["middle"]["protocol"]["center_crop"] == [12, 10]
    assert summary["windows"]["protocol"]["window"] == [9, 12]
    assert summary["windows"]["protocol"]["stride"] == [6, 8]

    table = printed[printed.index("IoU  ") :].splitlines()
    assert table[0].split() == ["IoU", *summary]
    assert [line.split()[0] for line in table[1:4]] == list(NAMES)
    assert len(table[4].split()) == 2 + 5


def test_a_protocol_that_does_not_exist_is_one_line(config, tmp_path):
    with pytest.raises(UserError, match=r"no protocol 'v3_os8'; did you mean .*v3_val_os8"):
        app.evaluate_protocols(config, tmp_path, "", "v3_val_os16,v3_os8")


def test_half_precision_builds_the_network_anew(config, dataset, monkeypatch):
    built = []

    def build(config, info):
        built.append(config.model.compute_dtype)
        return FromRedChannel()

    monkeypatch.setattr(network, "build", build)
    config.inference.compute_dtype = "bfloat16"
    scores = make_evaluator(config, FromRedChannel(), dataset, make_mesh())(VARIABLES).scores
    assert built == ["bfloat16"]
    assert scores["protocol"]["compute_dtype"] == "bfloat16"
    assert config.model.compute_dtype == "float32"
