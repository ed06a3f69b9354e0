"""`main.py` as a user runs it, in every mode, one process after the other on one workdir."""

from __future__ import annotations

import base64
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
CONFIG = """
from deeplab_jax.config import Config

def get_config():
    config = Config()
    config.model.backbone.name = "mobilenet_v2.mobilenet_v2"
    config.model.backbone.args = {"width": 0.25}
    config.model.head.args = {"aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4}
    config.data.dataset = "folder"
    config.data.batch_size = 2
    config.data.crop_size = (36, 50)  # neither fits the output stride: a warning, with aligned corners
    config.train.num_steps = 2
    config.inference.pad_to = (40, 48)
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of someone's own: images whose brighter half is the second class."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir()
    for index in range(5):
        mask = np.zeros((40, 48), np.uint8)
        mask[:, 20 + index :] = 1
        image = rng.integers(0, 100, (40, 48, 3)) + 120 * mask[..., None]
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
    (root / "classes.txt").write_text("dark\nbright\n")
    (root / "config.py").write_text(CONFIG)
    return root


def _invocation(folder, *arguments, config=True):
    """What runs main.py, for subprocess; without `config`, the workdir's own is left to serve."""
    command = [sys.executable, str(REPOSITORY / "main.py"), f"--workdir={folder / 'run'}"]
    command += [f"--config={folder / 'config.py'}", f"--config.data.root={folder}"] if config else []
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".jax_cache"),
    }
    return {"args": [*command, *arguments], "env": environment, "text": True}


def _run(folder, *arguments, config=True):
    done = subprocess.run(**_invocation(folder, *arguments, config=config), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _check_serving(folder):
    """Serves one image; Ctrl-C ends it in good order."""
    server = subprocess.Popen(**_invocation(folder, "--mode=serve", "--port=0"), stdout=subprocess.PIPE)
    try:
        address = next(line.split()[0] for line in server.stdout if line.startswith("http://"))
        request = urllib.request.Request(f"{address}api/segment", (folder / "images" / "3.png").read_bytes())
        with urllib.request.urlopen(request, timeout=300) as response:
            answer = json.load(response)
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
    assert server.returncode == 0
    with Image.open(io.BytesIO(base64.b64decode(answer["mask"]))) as mask:
        np.testing.assert_array_equal(mask, Image.open(folder / "run" / "predictions" / "3.png"))


def test_every_mode_on_a_folder_of_ones_own(folder):
    workdir = folder / "run"
    assert "wrote" in _run(folder)
    scores = json.loads((workdir / "scores.json").read_text())
    assert set(scores["iou_per_class"]) == {"dark", "bright"}

    (workdir / "scores.json").unlink()
    measures = [f"--config.inference.measures.{name}=true" for name in ("boundary_iou", "trimap", "calibration")]
    assert "calibration error" in _run(folder, "--mode=evaluate", *measures)
    again = json.loads((workdir / "scores.json").read_text())
    assert again["confusion"] == scores["confusion"]
    assert {"boundary_iou", "trimap", "calibration", "confidence_interval", "speed"} <= set(again)

    _run(folder, "--mode=predict", f"--images={folder / 'images'}", config=False)
    ids = Image.open(workdir / "predictions" / "3.png")
    assert (ids.mode, ids.size) == ("P", (48, 40))
    assert Image.open(workdir / "predictions" / "3_overlay.png").size == (48, 40)

    assert "same class on" in _run(folder, "--mode=export", config=False)
    about = json.loads((workdir / "export" / "model.stablehlo.json").read_text())
    assert about["class_names"] == ["dark", "bright"]
    _check_serving(folder)

    (workdir / "report.html").unlink()
    _run(folder, "--mode=report", config=False)
    html = (workdir / "report.html").read_text()
    assert "bright" in html
    assert "How often it is right" in html

    imported = folder / "imported"
    _run(folder, f"--workdir={imported}", "--mode=import", f"--source={workdir}")
    _run(folder, f"--workdir={imported}", "--mode=evaluate")
    assert json.loads((imported / "scores.json").read_text())["confusion"] == scores["confusion"]
    _run(folder, "--mode=report", "--compare", str(workdir), str(imported), config=False)
    assert "images in both" in (workdir / "comparison.html").read_text()
    assert "resuming at step 0" in _run(folder, f"--workdir={imported}", config=False)
