"""Every experiment: its file imports, validates, and its network and train step have shapes at full size."""

from __future__ import annotations

import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from deeplab_jax.apps import assemble
from deeplab_jax.models.build import build_model
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.train.optimizer import make_optimizer
from deeplab_jax.train.state import abstract_train_state, abstract_variables
from deeplab_jax.train.step import make_train_step
from deeplab_jax.types import Batch, DatasetInfo
from deeplab_jax.validation import validate

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py") if path.stem not in ("__init__", "common"))
INFO = DatasetInfo("any", 21, 255, ("thing",) * 21, ((0, 0, 0),) * 21, {})


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    validate(config, assemble.check_part)
    mesh = make_mesh(1)
    model = build_model(config.model, INFO)
    init = assemble.make_init(config, model)
    tx, rate = make_optimizer(config.optimizer, config.train.num_steps, abstract_variables(init, mesh)["params"])
    step = make_train_step(
        model.apply,
        assemble.make_loss(config.loss, INFO),
        tx,
        rate,
        mesh=mesh,
        ignore_label=255,
        seed=0,
        accumulation_steps=config.train.accumulation_steps,
        ema_decay=config.train.ema_decay,
        side_weight=config.loss.side_weight,
    )
    size = (config.data.batch_size, *config.data.crop_size)
    image = jax.ShapeDtypeStruct((*size, 3), jnp.uint8)
    batch = Batch(image, jax.ShapeDtypeStruct(size, jnp.uint8), jax.ShapeDtypeStruct(size[:1], jnp.bool_))
    state = abstract_train_state(init, tx, ema=config.train.ema_decay > 0, mesh=mesh)
    new_state, metrics = jax.eval_shape(step, state, batch)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), new_state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert all(metric.shape == () and metric.dtype == jnp.float32 for metric in metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_config_opens_with_its_command_and_its_score(name):
    text = pathlib.Path(REPOSITORY, "configs", f"{name}.py").read_text()
    head = text.split('"""')[1]
    assert f"python main.py --config=configs/{name}.py" in head
    assert "Takes:" in head
    assert "val mIoU: paper's" in head
    assert len(text.splitlines()) <= 60
