"""Every experiment: its file imports, validates, and its network and train step have shapes at full size."""

from __future__ import annotations

import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import own_data, v3plus_voc_large_batch
from deeplab_jax.apps.assembly.build_step import abstract_batch, build_step
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import DatasetInfo
from deeplab_jax.validation import validate, warnings_for

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py") if path.stem not in ("__init__", "common"))
INFO = DatasetInfo("any", 21, 255, ("thing",) * 21, ((0, 0, 0),) * 21, {})
BINARY = DatasetInfo("any", 2, 255, ("ground", "thing"), ((0, 0, 0),) * 2, {}, task="binary")


def check(config):
    """Validates, and traces one train step at full size."""
    validate(config)
    assert not warnings_for(config, training=True)
    mesh = make_mesh(1)
    info = BINARY if config.data.task == "binary" else INFO
    step = build_step(config, info, mesh)
    new_state, metrics = jax.eval_shape(step.train_step, step.state, abstract_batch(config, info, mesh))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), new_state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), step.state
    )
    assert all(metric.shape == () and metric.dtype == jnp.float32 for metric in metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    check(importlib.import_module(f"configs.{name}").get_config())


def test_own_data_is_sized_by_the_folder(tmp_path, capsys):
    for name, size in {"a": (70, 90), "b": (120, 70), "c": (64, 64)}.items():
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            pixels = np.tile(np.arange(size[1], dtype=np.uint8) % 2, (size[0], 1))
            Image.fromarray(pixels * 255).convert("RGB" if kind == "images" else "L").save(
                tmp_path / kind / f"{name}.png"
            )
    config = own_data.get_config(str(tmp_path))
    validate(config)
    assert config.data.crop_size == (65, 65)
    assert config.model.head.args["atrous_rates"] == (1, 2, 2)
    assert not warnings_for(config, training=True)
    assert config.train.num_steps == 600
    assert "crops of 65x65, 600 steps" in capsys.readouterr().err


def test_own_data_with_faults_can_be_linted(tmp_path):
    """The config does not stop at what the linter is asked for."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for name in "abc":
            Image.fromarray(np.zeros((40, 40 + (kind == "masks" and name == "b")), np.uint8)).save(
                tmp_path / kind / f"{name}.png"
            )
    (tmp_path / "images" / "c.png").write_bytes(b"no image")
    (tmp_path / "classes.txt").write_text("ground\nthing\n")
    assert own_data.get_config(str(tmp_path)).data.crop_size == (33, 33)


def test_own_images_of_one_row_get_a_crop_that_a_network_takes(tmp_path):
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / kind).mkdir()
        for name in "abc":
            Image.fromarray(np.tile(np.uint8([0, 255]), (1, 50))).convert(mode).save(tmp_path / kind / f"{name}.png")
    config = own_data.get_config(str(tmp_path))
    validate(config)
    assert config.data.crop_size == (17, 17)


SIZES = (16, 32, 64, 128, 256, 512, 1024)


# 64 is what the file gives by itself; tracing takes seconds, and the others differ from these two in numbers alone.
@pytest.mark.parametrize("batch_size", [pytest.param(n, marks=[pytest.mark.slow] * (n != 1024)) for n in SIZES])
def test_the_step_of_a_large_batch_has_shapes(batch_size):
    check(v3plus_voc_large_batch.get_config(str(batch_size)))


@pytest.mark.parametrize("batch_size", SIZES)
def test_a_batch_of_any_size_sees_as_many_images(batch_size):
    config = v3plus_voc_large_batch.get_config(str(batch_size))
    validate(config)
    assert config.data.batch_size == batch_size
    assert config.data.batch_size * config.train.num_steps == pytest.approx(16 * 30_000, rel=1e-3)
    assert config.optimizer.warmup_steps * batch_size == pytest.approx(5 * 10_582 * (batch_size > 16), rel=0.02)
    assert config.model.batch_norm.decay ** (16 / batch_size) == pytest.approx(0.9997)
    assert config.optimizer.name == ("lars" if batch_size >= 512 else "sgd")
    if batch_size < 512:
        assert config.optimizer.learning_rate == pytest.approx(0.007 * batch_size / 16)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_opens_with_its_command_and_its_score(name):
    text = pathlib.Path(REPOSITORY, "configs", f"{name}.py").read_text()
    head = text.split('"""')[1]
    assert f"python main.py --config=configs/{name}.py" in head
    assert "Takes:" in head
    assert "val mIoU: paper's" in head
    assert len(text.splitlines()) <= 60
