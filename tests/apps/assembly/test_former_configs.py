"""Workdirs of earlier versions go on: a new default that means the same is no other config."""

from __future__ import annotations

import json

import pytest

from deeplab_jax.apps.assembly.workdir import CONFIG_FILE, open_workdir
from deeplab_jax.config import Config
from deeplab_jax.types import UserError


def test_the_loss_that_had_a_name_before_tasks(tmp_path):
    open_workdir(Config(), tmp_path)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    stored = json.loads((tmp_path / CONFIG_FILE).read_text())
    stored["loss"]["name"] = "cross_entropy.softmax_cross_entropy"
    (tmp_path / CONFIG_FILE).write_text(json.dumps(stored))
    open_workdir(Config(), tmp_path)
    stored["loss"]["name"] = "focal.softmax_focal"
    (tmp_path / CONFIG_FILE).write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"another config \(loss\.name: "):
        open_workdir(Config(), tmp_path)
