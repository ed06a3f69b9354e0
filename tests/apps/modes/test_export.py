"""Exporting a run: what is written, what is compared, what a mistake says."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp
from PIL import Image

from deeplab_jax.apps.assembly import export_check, network, open_data
from deeplab_jax.apps.modes import export as app
from deeplab_jax.apps.modes.predict import predict
from deeplab_jax.config import Config
from deeplab_jax.data.sources.rendering import render_scene
from deeplab_jax.export.formats import stablehlo
from deeplab_jax.types import NORMALIZATIONS, DatasetInfo, Normalization, UserError
from deeplab_jax.weights.formats import safetensors_file

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PALETTE = ((0, 0, 0), (250, 10, 20), (10, 250, 20))
INFO = DatasetInfo("toy", 3, 255, ("blue", "red", "green"), PALETTE, {"val": 1})


class Strongest(nn.Module):
    """Class 1 where red is the strongest channel, 2 where green is, else 0."""

    normalization: Normalization = NORMALIZATIONS["imagenet"]

    @nn.compact
    def __call__(self, images, *, train=False):
        scale = self.param("scale", nn.initializers.ones, (3,))
        return jnp.stack([images[..., k] for k in (2, 0, 1)], axis=-1).astype(jnp.float32) * scale[None, None, None]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """export(...) of a small network in place of a trained one, into tmp_path / 'out'."""
    monkeypatch.setattr(open_data, "find_info", lambda config, workdir: INFO)
    monkeypatch.setattr(network, "build", lambda config, info: Strongest())
    monkeypatch.setattr(
        network, "load_variables", lambda *args, **kwargs: {"params": {"scale": np.full(3, 0.1, np.float32)}}
    )

    def run(formats="stablehlo", config=None, **arguments):
        arguments = {"images": str(photo(tmp_path)), "output": str(tmp_path / "out")} | arguments
        app.export(config or Config(), tmp_path, "", formats, **arguments)
        return tmp_path / "out"

    return run


def photo(folder):
    path = folder / "photo.png"
    Image.fromarray(render_scene(np.random.default_rng(3), (40, 56))[0]).save(path)
    return path


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def exported(run, capsys):
    folder = run()
    return folder, capsys.readouterr().out


def test_the_file_is_described_and_its_agreement_printed(exported):
    folder, printed = exported
    assert sorted(path.name for path in folder.iterdir()) == ["model.stablehlo", "model.stablehlo.json"]
    about = json.loads((folder / "model.stablehlo.json").read_text())
    assert about["sha256"] == hashlib.sha256((folder / "model.stablehlo").read_bytes()).hexdigest()
    assert about["class_names"] == ["blue", "red", "green"]
    assert about["palette"] == [list(color) for color in PALETTE]
    assert about["input"]["channels"] == ["red", "green", "blue"]
    assert set(about["outputs"]) == {"class_ids", "logits"}
    assert about["normalization"]["mean"] == list(NORMALIZATIONS["imagenet"].mean)
    assert about["agreement"]["images"] == ["photo.png"]
    assert about["agreement"]["largest_logit_difference"] <= 1e-3
    assert about["agreement"]["same_pixels"] == 1.0
    assert set(about["versions"]) == {"deeplab_jax", "jax", "flax"}
    assert "same class on 100.000% of the pixels" in printed
    assert "/" not in json.dumps(about), "a path of the machine that exported it"


def test_a_script_without_the_project_gives_what_predict_gives(exported, tmp_path, monkeypatch):
    folder, _ = exported
    script = REPOSITORY / "docs" / "run_exported.py"
    assert "deeplab_jax" not in script.read_text()
    code = script.read_text().split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    command = [sys.executable, str(script), str(folder / "model.stablehlo"), str(photo(tmp_path))]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [*command, str(tmp_path / "mask.png")], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    predict(Config(), tmp_path, "", str(photo(tmp_path)))
    with Image.open(tmp_path / "mask.png") as ours, Image.open(tmp_path / "predictions" / "photo.png") as predicted:
        assert (ours.mode, ours.getpalette()[:9]) == ("P", predicted.getpalette()[:9])
        np.testing.assert_array_equal(ours, predicted)


def test_a_file_that_computes_something_else_is_not_shipped(run, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.stablehlo").write_text("of yesterday")
    load = stablehlo.load

    def wrong(path):
        network = load(path)
        return lambda images: {name: output + (name == "logits") * 0.01 for name, output in network(images).items()}

    monkeypatch.setattr(stablehlo, "load", wrong)
    with pytest.raises(UserError, match=r"results are not the network's: logits within 1\.0e-02") as error:
        run()
    one_line(error)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.stablehlo"]
    assert (tmp_path / "out" / "model.stablehlo").read_text() == "of yesterday"


def test_masks_are_compared_too(run, monkeypatch):
    load = stablehlo.load

    def wrong(path):
        network = load(path)

        def corrupted(images):
            outputs = dict(network(images))
            outputs["class_ids"] = outputs["class_ids"].copy()
            outputs["class_ids"][:, :, :2] = 3
            return outputs

        return corrupted

    monkeypatch.setattr(stablehlo, "load", wrong)
    with pytest.raises(UserError, match="same class on 96"):
        run()


def test_other_outputs_can_be_asked_for(run):
    config = Config()
    config.export.outputs = ("probabilities",)
    folder = run(config=config)
    about = json.loads((folder / "model.stablehlo.json").read_text())
    assert about["agreement"]["largest_logit_difference"] is None
    outputs = stablehlo.load(folder / "model.stablehlo")(np.full((1, 5, 6, 3), 9, np.uint8))
    np.testing.assert_allclose(outputs["probabilities"], np.full((1, 5, 6, 3), 1 / 3), atol=1e-6)


def test_without_images_or_a_data_set_scenes_are_rendered(monkeypatch):
    def no_data(config):
        raise UserError("no data set here")

    monkeypatch.setattr(open_data, "open_dataset", no_data)
    found = export_check.find_check_images(Config(), INFO, "")
    assert list(found) == [f"rendered scene {seed}" for seed in range(4)]


@pytest.mark.parametrize(
    ("formats", "message"),
    [("stablhlo", "--format=stablhlo: no module 'stablhlo'.*'stablehlo'"), ("", "--format=: ")],
)
def test_an_unknown_format_is_one_line(run, tmp_path, formats, message):
    with pytest.raises(UserError, match=message) as error:
        run(formats)
    one_line(error)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_line(run, tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*model\.stablehlo: Not a directory") as error:
        run(output=str(photo(tmp_path) / "below"))
    one_line(error)


def test_weights_are_exported_with_a_program(run, capsys):
    """The network of these tests is none of ours, which no reader builds: its arrays alone are looked at."""
    folder = run("safetensors,stablehlo")
    assert {"model.safetensors", "model.stablehlo", "model.stablehlo.json"} == {each.name for each in folder.iterdir()}
    assert "model.safetensors: 0.0 MB" in capsys.readouterr().out
    arrays = safetensors_file.read(folder / "model.safetensors")
    np.testing.assert_array_equal(arrays["params/scale"], np.full(3, 0.1, np.float32))


def test_weights_that_are_no_networks_of_a_peers_are_refused(run):
    with pytest.raises(UserError) as error:
        run("torchvision")
    assert "layout 'torchvision': no network there has head" in one_line(error)
    assert "--format=safetensors" in one_line(error)
