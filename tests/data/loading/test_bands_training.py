"""Satellite-like images through every app: five bands of 16 bits, as files, as raw copies, augmented on the devices."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_bands import NAMES, make_bright_bands, write_bands, write_bands_image
from PIL import Image

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.modes.evaluate import evaluate
from deeplab_jax.apps.modes.predict import predict
from deeplab_jax.apps.modes.train import train
from deeplab_jax.apps.pages.run_report import report
from deeplab_jax.config import Config, PartConfig
from deeplab_jax.types import UserError


def make_config(root, prepared):
    config = Config()
    config.model.backbone = PartConfig("resnet.ResNet", {"num_units": (1, 1, 1, 1), "multi_grid": (1,), "width": 0.125})
    config.model.head = PartConfig("auxiliary.auxiliary", {"channels": 8, "dropout": 0.0})
    config.model.normalization = "dataset"
    config.data.dataset, config.data.root, config.data.prepared_dir = "folder", str(root), str(prepared)
    config.data.batch_size, config.data.crop_size, config.data.num_workers = 2, (33, 33), 2
    config.data.flip = True
    config.train.num_steps = config.train.eval_every = config.train.checkpoint_every = 2
    config.inference.batch_size, config.inference.pad_to = 1, (33, 49)
    config.mesh.data = 1
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(config, workdir, root) of a run of two steps."""
    folder = tmp_path_factory.mktemp("bands")
    root = write_bands(folder / "root", 5, "uint16")
    config = make_config(root, folder / "prepared")
    assert train(config, folder / "run") == 0
    return config, folder / "run", root


def test_the_workdir_knows_the_channels(run):
    config, workdir, _ = run
    known = json.loads((workdir / "dataset.json").read_text())
    values = np.concatenate([make_bright_bands(seed, 5, "uint16").reshape(-1, 5) for seed in range(3)])
    assert (known["channels"], known["dtype"]) == (5, "uint16")
    np.testing.assert_allclose(known["channel_mean"], values.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(known["channel_std"], values.std(axis=0, dtype=np.float64))
    assert open_data.find_info(config, workdir) == open_data.open_normalized(config, workdir).info


def test_prediction_needs_no_data_set_and_shows_what_there_is(run, tmp_path):
    config, workdir, _ = run
    write_bands_image(tmp_path / "in" / "new.tif", make_bright_bands(9, 5, "uint16"))
    config = make_config(tmp_path / "gone", tmp_path / "gone")
    predict(config, workdir, "", str(tmp_path / "in"), str(tmp_path / "out"))
    with Image.open(tmp_path / "out" / "new.png") as ids, Image.open(tmp_path / "out" / "new_overlay.png") as overlay:
        assert ids.size == overlay.size == (36, 24)
        assert np.asarray(overlay).std() > 10
    write_bands_image(tmp_path / "in" / "new.tif", make_bright_bands(9, 4, "uint16"))
    with pytest.raises(UserError, match=r"1 of 1 images could not be read.*4 channels of uint16, but .* is of 5"):
        predict(config, workdir, "", str(tmp_path / "in"), str(tmp_path / "out"))


def test_evaluation_and_report_work_on_the_same_run(run):
    config, workdir, _ = run
    before = json.loads((workdir / "scores.json").read_text())
    evaluate(config, workdir)
    assert json.loads((workdir / "scores.json").read_text())["confusion"] == before["confusion"]
    report(config, workdir)
    assert (workdir / "report.html").stat().st_size > 10_000


def test_devices_may_augment_raw_copies(run, tmp_path):
    config, workdir, root = run
    config = make_config(root, config.data.prepared_dir)
    config.data.device_augmentation, config.data.prepared_form = True, "raw"
    assert train(config, tmp_path / "run") == 0
    losses = [
        [
            line["loss"]
            for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            if "loss" in line
        ]
        for folder in (workdir, tmp_path / "run")
    ]
    np.testing.assert_allclose(*losses, rtol=0.01)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "model.normalization",
            "imagenet",
            r"'imagenet': is for RGB bytes, .* 5 channels of uint16; set it to 'dataset'",
        ),
        ("data.photometric", True, "True: is for RGB bytes, data set folder has 5 channels of uint16; set it to False"),
        ("inference.crf", "v1", "'v1': is for RGB bytes"),
    ],
)
def test_what_is_for_rgb_bytes_is_refused_before_anything_is_read(run, tmp_path, field, value, message):
    config = make_config(run[2], tmp_path / "prepared")
    part, name = field.split(".")
    setattr(getattr(config, part), name, value)
    with pytest.raises(UserError, match=rf"^config\.{field}={message}"):
        train(config, tmp_path / "run")


def test_a_run_goes_on_with_the_statistics_that_it_began_with(run, tmp_path):
    config, workdir, _ = run
    known = open_data.find_info(config, workdir)
    other = make_config(write_bands(tmp_path / "other", 5, "uint16", names=NAMES[:3]), tmp_path / "prepared")
    assert open_data.open_normalized(other, workdir).info.channel_mean == known.channel_mean
    assert open_data.open_normalized(other, tmp_path / "new").info.channel_mean != known.channel_mean
