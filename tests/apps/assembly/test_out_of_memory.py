"""Out of memory: the table, the settings that need less, one line, status 2."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from deeplab_jax.apps.assembly.memory_report import describe_memory, explain_out_of_memory, remedies
from deeplab_jax.config import Config
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.train.step_memory import StepMemory
from deeplab_jax.types import UserError

GB = 10**9
NEEDS = StepMemory(1 * GB, 10**6, 1 * GB, 0, 10**7, temporaries=24 * GB, capacity=16 * GB)


@pytest.fixture
def config():
    config = Config()
    config.data.batch_size = 64
    return config


def test_the_needs_are_one_line():
    assert describe_memory(NEEDS) == (
        "memory      per device 26.01 GB of 16.00 GB (parameters 1.00 GB, statistics 1.00 MB, optimizer 1.00 GB, "
        "batch 10.00 MB, temporaries 24.00 GB)"
    )


def test_out_of_memory_is_told_with_the_table_and_what_needs_less(config, capsys):
    with pytest.raises(UserError) as caught, explain_out_of_memory(config, make_mesh(4), [NEEDS]):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 24000000000 bytes.")
    assert capsys.readouterr().out == describe_memory(NEEDS) + "\n"
    assert str(caught.value) == (
        "out of memory on the devices: --config.model.compute_dtype=bfloat16 (about 14.01 GB), or "
        '--config.model.remat=\'("backbone/.*","head/.*")\' (a third more computation), or '
        "--config.train.accumulation_steps=2 (about 14.01 GB, batch norm over 32 images), or "
        "--config.mesh.shard_optimizer=True, or a smaller config.data.crop_size or batch_size"
    )


def test_the_slices_are_as_many_as_are_needed_and_possible(config):
    small = dataclasses.replace(NEEDS, capacity=7 * GB)
    assert "accumulation_steps=8 (about 5.01 GB" in remedies(config, make_mesh(4), small)
    assert "accumulation_steps=16 (" in remedies(config, make_mesh(4), dataclasses.replace(NEEDS, capacity=GB))
    config.train.accumulation_steps = 16
    assert "accumulation_steps" not in remedies(config, make_mesh(4), small)


def test_what_is_in_use_is_not_advised(config):
    config.model.compute_dtype, config.model.remat = "bfloat16", ("backbone/.*",)
    config.mesh.shard_optimizer, config.model.batch_norm.frozen = True, True
    assert remedies(config, make_mesh(4), NEEDS) == (
        "--config.train.accumulation_steps=2 (about 14.01 GB), or a smaller config.data.crop_size or batch_size"
    )


def test_other_errors_are_left_alone(config):
    with pytest.raises(jax.errors.JaxRuntimeError), explain_out_of_memory(config, make_mesh(1), []):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
