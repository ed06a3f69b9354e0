"""Every experiment: its file imports, validates, and its network and train step have shapes at full size."""

from __future__ import annotations

import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from configs import v3plus_voc_large_batch
from deeplab_jax.apps.assembly.build_step import abstract_batch, build_step
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import DatasetInfo
from deeplab_jax.validation import validate, warnings_for

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py") if path.stem not in ("__init__", "common"))
INFO = DatasetInfo("any", 21, 255, ("thing",) * 21, ((0, 0, 0),) * 21, {})


def check(config):
    """Validates, and traces one train step at full size."""
    validate(config)
    assert not warnings_for(config)
    mesh = make_mesh(1)
    step = build_step(config, INFO, mesh)
    new_state, metrics = jax.eval_shape(step.train_step, step.state, abstract_batch(config, INFO, mesh))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), new_state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), step.state
    )
    assert all(metric.shape == () and metric.dtype == jnp.float32 for metric in metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    check(importlib.import_module(f"configs.{name}").get_config())


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
