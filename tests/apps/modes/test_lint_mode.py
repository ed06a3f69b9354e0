"""The lint mode: lint.json, what is printed, the exit status, copies on request, and data sets of every kind."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.apps.command import main
from deeplab_jax.apps.modes.lint import lint
from deeplab_jax.config import Config
from deeplab_jax.data.inspection.class_counts import ClassCounts, effective_number_weights, median_frequency_weights
from deeplab_jax.types import UserError

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
COLORS = np.zeros((256, 3), np.uint8)
COLORS[1], COLORS[255] = (128, 0, 0), (224, 224, 192)  # PASCAL VOC's
CONFIG = """
from deeplab_jax.config import Config

def get_config():
    config = Config()
    config.data.dataset = "folder"
    return config
"""


@pytest.fixture
def root(tmp_path):
    """Ten images with masks of two classes; every fifth is for validation."""
    rng = np.random.default_rng(0)
    root = tmp_path / "own"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for k in range(10):
        Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(root / "images" / f"{k}.png")
        Image.fromarray(make_mask(k)).save(root / "masks" / f"{k}.png")
    (root / "classes.txt").write_text("dark\nbright\n")
    return root


def make_mask(k):
    mask = np.zeros((8, 9), np.uint8)
    mask[:, 4:] = 1
    mask[0, : k + 1] = 255
    return mask


@pytest.fixture
def config(root):
    config = Config()
    config.data.dataset, config.data.root = "folder", str(root)
    return config


def plant(root):
    ids = make_mask(3)
    ids[4, 5] = 17
    Image.fromarray(ids).save(root / "masks" / "3.png")
    Image.fromarray(COLORS[make_mask(4)]).save(root / "masks" / "4.png")


def read(workdir):
    return json.loads((workdir / "lint.json").read_text())


def test_a_good_data_set(config, tmp_path, capsys):
    assert lint(config, tmp_path / "run") == 0
    content = read(tmp_path / "run")
    assert content["num_findings"] == {"error": 0, "warning": 0, "note": 0}
    assert content["findings"] == []
    assert {split: each["num_listed"] for split, each in content["splits"].items()} == {"train": 8, "val": 2}
    out = capsys.readouterr().out
    assert out.startswith("no findings\n")
    assert "folder: 0 errors, 0 warnings, 0 notes in 10 images" in out
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["lint.html", "lint.json"]


def test_the_page_shows_samples_and_what_training_sees(config, root, tmp_path):
    plant(root)
    config.data.crop_size = (17, 17)
    lint(config, tmp_path)
    page = (tmp_path / "lint.html").read_text()
    assert "masks with values that are no class (1)" in page
    assert "holds the value 17 (1 pixel)" in page
    assert "<code>train</code>: 8, <code>val</code>: 2." in page
    for name in ("dark", "bright"):
        assert f"</i>{name}</td>" in page
    assert "Crops of the samples above, 17x17 pixels" in page
    assert page.count("data:image/jpeg") == 2 * (10 - 2 + 8)  # samples that cannot be read are left out


def test_the_page_says_why_there_are_no_crops(config, root, tmp_path):
    for k in range(10):
        (root / "masks" / f"{k}.png").write_bytes(b"")
    lint(config, tmp_path)
    assert "None: none of the samples could be read." in (tmp_path / "lint.html").read_text()


def test_class_frequencies_and_the_weights_that_follow(config, tmp_path, capsys):
    lint(config, tmp_path)
    content = read(tmp_path)
    counts = [ClassCounts.zeros(2), ClassCounts.zeros(2)]
    for split, each in zip(("train", "val"), counts, strict=True):
        told = content["splits"][split]["classes"]
        assert told["dark"]["images"] == told["bright"]["images"] == content["splits"][split]["num_listed"]
        each.pixels[:] = [told["dark"]["pixels"], told["bright"]["pixels"]]
        each.images[:] = [told["dark"]["images"]] * 2
        each.pixels_beside[:] = each.pixels.sum()
        assert told["dark"]["pixel_fraction"] == pytest.approx(each.pixels[0] / each.pixels.sum())
    assert sum(each.pixels.sum() for each in counts) == sum((make_mask(k) < 2).sum() for k in range(10))
    assert content["class_weights"]["split"] == "train"
    weights = content["class_weights"]["weights"]
    assert tuple(weights["balanced"].values()) == pytest.approx(median_frequency_weights(counts[0]))
    assert tuple(weights["effective_number"].values()) == pytest.approx(effective_number_weights(counts[0]))
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("bright"))
    assert f"{weights['balanced']['bright']:.4f}" in line


def test_faults_are_printed_by_kind_and_are_all_in_the_file(config, root, tmp_path, capsys):
    plant(root)
    assert lint(config, tmp_path) == 1
    content = read(tmp_path)
    found = {pathlib.Path(each["file"]).name: each for each in content["findings"]}
    assert found["3.png"]["kind"] == "invalid_value"
    assert found["3.png"]["values"] == {"17": 1}
    assert (found["4.png"]["kind"], found["4.png"]["convertible"]) == ("palette_as_rgb", True)
    assert {each["severity"] for each in content["findings"]} == {"error"}
    out = capsys.readouterr().out
    assert "error: masks with values that are no class (1)\n  " in out
    assert f"{root}/masks/3.png: holds the value 17 (1 pixel), the first at row 4, column 5" in out
    assert "folder: 2 errors, 0 warnings, 0 notes in 10 images" in out


def test_what_is_printed_ends_though_the_faults_do_not(config, root, tmp_path, capsys):
    for k in range(10):
        Image.fromarray(np.full((8, 9), 200, np.uint8)).save(root / "masks" / f"{k}.png")
    for k in range(10, 15):
        (root / "images" / f"{k}.png").write_bytes((root / "images" / "0.png").read_bytes())
        Image.fromarray(np.full((8, 9), 200, np.uint8)).save(root / "masks" / f"{k}.png")
    assert lint(config, tmp_path) == 1
    out = capsys.readouterr().out
    assert "error: masks with values that are no class (15)" in out
    assert out.count("holds the value 200") == 10
    assert "  and 5 more, in lint.json" in out
    assert read(tmp_path)["num_findings"]["error"] >= 15


def test_no_data_set_is_a_mistake_of_the_user(config, root, tmp_path):
    (root / "classes.txt").write_text("")
    with pytest.raises(UserError, match=r"classes\.txt: names 0 classes"):
        lint(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_with_copies(root, tmp_path):
    """`main.py` as a user runs it: the status tells whether the copy is whole and good; nothing is overwritten."""
    plant(root)
    (tmp_path / "config.py").write_text(CONFIG)

    def run(*arguments):
        command = [sys.executable, "main.py", f"--config={tmp_path / 'config.py'}", "--mode=lint"]
        command += [f"--workdir={tmp_path / 'run'}", f"--config.data.root={root}", *arguments]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)

    done = run(f"--output={tmp_path / 'fixed'}")
    assert done.returncode == 1
    assert f"refused: {root}/masks/3.png: its fault is told above; it is not in the copy" in done.stdout
    assert f"{tmp_path / 'fixed'}: 9 of 10 samples copied, masks as class ids; 0 errors in the copy" in done.stdout
    assert f"--config.data.dataset=folder --config.data.root={tmp_path / 'fixed'}" in done.stdout
    assert "folder: 2 errors" in done.stdout
    done = run(f"--output={tmp_path / 'fixed'}")
    assert done.returncode == 2
    assert f"\nerror: --output={tmp_path / 'fixed'}: is there already; name a new folder for the" in done.stderr
    Image.fromarray(make_mask(3)).save(root / "masks" / "3.png")
    done = run(f"--output={tmp_path / 'whole'}")
    assert done.returncode == 0  # the original's fault is not the copy's
    assert "folder: 1 error" in done.stdout
    assert "10 of 10 samples copied" in done.stdout


def test_file_names_that_are_no_text(root, tmp_path, capsys):
    (root / "masks" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    (root / "images" / "0.png").rename(root / "images" / os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "config.py").write_text(CONFIG)
    flags = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}", f"--config.data.root={root}"]
    assert main(["main.py", *flags, "--mode=lint"]) == 1
    assert r"masks/caf\udce9.png: is empty; copy the file again" in capsys.readouterr().out
    assert any(finding["file"].endswith("caf\udce9.png") for finding in read(tmp_path / "run")["findings"])
