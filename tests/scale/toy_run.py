"""One process of a run of the training mode, with a toy network and toy data in the real machinery.

python toy_run.py WORKDIR [HOST:PORT NUM_PROCESSES PROCESS_ID [kill|terminate POSITION]]
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.processes import join_processes
from deeplab_jax.apps.modes import train as app
from deeplab_jax.config import BatchNormConfig, Config, DataConfig, InferenceConfig, OptimizerConfig, TrainConfig
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.loading.loader import TrainLoader
from deeplab_jax.nn.norm import BatchNorm
from deeplab_jax.types import DatasetInfo, Example, UserError

NUM_STEPS = 12
SPLITS = {"train": 10, "val": 7}


class Toy(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(8, (3, 3), name="backbone")(jnp.asarray(images, jnp.float32) / 255)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(BatchNorm(name="norm")(x, train=train)))
        return nn.Conv(self.num_classes, (1, 1), name="head")(x)


def make_dataset():
    """Noise whose class is its strongest channel, in images of two sizes."""

    def split(name):
        rng = np.random.default_rng(len(name))
        images = [rng.integers(0, 256, (20 + k % 2, 24, 3), dtype=np.uint8) for k in range(SPLITS[name])]
        return [Example(f"{name}{k}", x, x.argmax(-1).astype(np.uint8)) for k, x in enumerate(images)]

    return Dataset(DatasetInfo("toy", 3, 255, ("red", "green", "blue"), ((0, 0, 0),) * 3, SPLITS), split)


def make_config(**mesh):
    config = Config(
        data=DataConfig(batch_size=8, crop_size=(17, 17), num_workers=1),
        optimizer=OptimizerConfig(learning_rate=0.1),
        train=TrainConfig(num_steps=NUM_STEPS, log_every=1, eval_every=NUM_STEPS, checkpoint_every=4, ema_decay=0.9),
        inference=InferenceConfig(batch_size=4, bucket=8),
    )
    config.model.batch_norm = BatchNormConfig(decay=0.9)
    config.inference.measures.boundary_iou = True  # which each process counts for its own images
    for name, value in mesh.items():
        setattr(config.mesh, name, value)
    return config


def run(workdir, config, mischief=lambda position: None):
    """The training mode on the toy; `mischief` is told the position of each batch before it is made."""
    make_batch = TrainLoader.__next__

    def with_mischief(loader):
        mischief(loader.get_state()["position"])
        return make_batch(loader)

    with (
        mock.patch.object(open_data, "open_dataset", return_value=make_dataset()),
        mock.patch.object(network, "build", return_value=Toy(3)),
        mock.patch.object(TrainLoader, "__next__", with_mischief),
    ):
        return app.train(config, pathlib.Path(workdir))


def main(workdir, coordinator="", num_processes="0", process_id="-1", kind="", at="0"):
    """Returns the exit status, as main.py would."""

    def mischief(position):
        if kind and position == int(at):
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}[kind])
        if kind == "terminate" and position >= int(at):
            time.sleep(0.5)  # news travels once a second

    join_processes(coordinator, int(num_processes), int(process_id))
    try:
        return run(workdir, make_config(shard_optimizer=True), mischief)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(2)


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "float32")
    logging.set_verbosity(logging.FATAL)
    sys.exit(main(*sys.argv[1:]))
