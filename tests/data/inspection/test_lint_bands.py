"""What lint says of images that are no RGB bytes, and of RGB bytes that were made of more."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from made_bands import NAMES, make_bands, make_bright_bands, write_bands, write_bands_image
from made_files import write_folder

from deeplab_jax.apps.modes import lint as app
from deeplab_jax.config import Config
from deeplab_jax.data.datasets import folder
from deeplab_jax.data.inspection.linter import lint_dataset


def lint(root):
    dataset = folder.open_dataset(str(root), str(root.parent / "prepared"))
    return lint_dataset(dataset, train_split="train", eval_split="val", num_workers=2)


def messages(report):
    return {finding.kind: finding.message for finding in report.findings}


def test_nothing_is_found_where_nothing_is_wrong_and_ranges_are_told(tmp_path, capsys):
    root = write_bands(tmp_path / "root", 5, "uint16")
    config = Config()
    config.data.dataset, config.data.root, config.data.prepared_dir = "folder", str(root), str(tmp_path / "prepared")
    assert app.lint(config, tmp_path / "run") == 0
    content = json.loads((tmp_path / "run" / "lint.json").read_text())
    values = np.stack([make_bright_bands(seed, 5, "uint16") for seed in range(len(NAMES) - 1)])
    assert content["findings"] == []
    told = content["channels"]["train"][4]
    assert (told["lowest"], told["highest"], told["missing"]) == (values[..., 4].min(), values[..., 4].max(), 0)
    assert told["mean"] == pytest.approx(values[..., 4].mean())
    out = capsys.readouterr().out
    assert f"      4  train         {values[..., 4].min():10.5g}  {values[..., 4].max():10.5g}" in out


def test_planted_faults_are_found(tmp_path):
    root = write_bands(tmp_path / "root", 2, "float32")
    for seed, name in enumerate(NAMES):
        image = make_bands(seed, 2, "float32")
        image[..., 1] = 4.0
        write_bands_image(root / "images" / f"{name}.tif", image)
    write_bands_image(root / "images" / "a.tif", make_bands(0, 2, "uint16"))
    (root / "images" / "b.tif").write_bytes((root / "images" / "b.tif").read_bytes()[:300])
    report = lint(root)
    found = messages(report)
    assert set(found) == {"other_format", "unreadable", "missing_values", "constant_channel"}
    assert "a.tif: holds 2 channels of uint16, but the data set is of 2 channels of float32" in found["other_format"]
    assert "b.tif: is no readable TIFF" in found["unreadable"]
    assert "12 of its values (0.7%) are NaN or infinite" in found["missing_values"]
    assert found["constant_channel"].endswith("channel 1 (counted from 0) is 4 in all images; leave it out")
    assert report.channels["train"].num_missing.tolist() == [12, 0]


def test_rgb_that_was_more_is_pointed_out(tmp_path):
    root = write_folder(tmp_path / "root", ["a", "b", "c"], {"train": ["a", "b"], "val": ["c"]})
    deep = np.random.default_rng(0).integers(0, 4096, (20, 30), np.uint16)
    cv2.imwrite(str(root / "images" / "a.png"), deep)
    (root / "images" / "c.png").unlink()
    write_bands_image(root / "images" / "c.tif", make_bands(0, 5, "uint16", size=(20, 30)))
    found = lint(root).findings
    assert {(finding.kind, finding.file[-5:]) for finding in found if finding.kind != "absent_class"} == {
        ("reduced_image", "a.png"),
        ("reduced_image", "c.tif"),
        ("other_format", "c.tif"),
    }
    (first, *_) = [finding.message for finding in found if finding.file.endswith("a.png")]
    assert 'write "channels": 1, "dtype": "uint16" into classes.json' in first
