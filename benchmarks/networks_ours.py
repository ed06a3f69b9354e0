"""This project's side of benchmarks/networks.py: the network imported from a peer's file, or that of a config."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.pairs import peak_bytes, reset_peak, turn_seconds
from deeplab_jax.apps.assembly import network
from deeplab_jax.apps.assembly.build_step import build_step
from deeplab_jax.apps.import_weights import import_checkpoint
from deeplab_jax.config import Config
from deeplab_jax.models.build import build_model
from deeplab_jax.ops.mesh import make_mesh, replicated, shard_batch
from deeplab_jax.train.state import create_train_state, create_variables
from deeplab_jax.types import Batch, DatasetInfo

IGNORE_LABEL = 255


class Network:
    """One network and the step being measured."""

    def __init__(self, weights: str, config: str, num_classes: int, dtype: str) -> None:
        """Places the variables on the device.

        Args:
          weights: the peer's file; '' for random ones.
          config: module of configs/ whose network and optimiser are used; '' for the network of `weights`.
          num_classes: of the labels.
          dtype: the network's compute dtype.
        """
        names, palette = ("any",) * num_classes, ((0, 0, 0),) * num_classes
        self._info = DatasetInfo("random", num_classes, IGNORE_LABEL, names, palette, {})
        self._mesh = make_mesh(1)
        self._config = importlib.import_module(f"configs.{config}").get_config() if config else Config()
        variables: Any = None
        if weights:
            self._config.model, variables = import_checkpoint(weights, layout="")
        self._config.model = dataclasses.replace(self._config.model, compute_dtype=dtype)
        self._model = build_model(self._config.model, self._info)
        if variables is None:
            variables = create_variables(network.make_init(self._config, self._model), seed=0, mesh=self._mesh)
        self._variables = jax.device_put(variables, replicated(self._mesh))
        self._num_parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        self._run: Callable[[], Any] = lambda: None

    def num_parameters(self) -> int:
        """The number of trainable values, including batch norm's."""
        return self._num_parameters

    def prepare(self, mode: str, shape: tuple[int, int, int], num_classes: int) -> float:
        """Selects 'forward' or 'train' on random images of shape [b, h, w]; returns the seconds of the first step."""
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (*shape, 3), np.uint8)
        labels = rng.integers(0, num_classes, shape, np.uint8)
        batch = shard_batch(Batch(images, labels, np.ones(shape[0], bool)), self._mesh)
        self._run = self._train_step(batch) if mode == "train" else self._forward_step(batch)
        start = time.perf_counter()
        self._run()
        seconds = time.perf_counter() - start
        self._run()
        reset_peak()
        return seconds

    def turn(self) -> float:
        """Seconds of one step."""
        return turn_seconds(self._run)

    def logits(self) -> np.ndarray:
        """The logits of the forward step, [b, h, w, c]."""
        return np.asarray(self._run())

    def memory(self) -> dict[str, int]:
        """Peak bytes while the step ran; on a GPU, where the peak cannot be reset, since the start."""
        statistics = jax.local_devices()[0].memory_stats()
        return {"running": statistics["peak_bytes_in_use"] if statistics else peak_bytes()}

    def device(self) -> str:
        """The device's name."""
        return jax.local_devices()[0].device_kind

    def _forward_step(self, batch: Batch) -> Callable[[], jax.Array]:
        apply = jax.jit(lambda variables, images: self._model.apply(variables, images, train=False))
        return lambda: jax.block_until_ready(apply(self._variables, batch.image))

    def _train_step(self, batch: Batch) -> Callable[[], None]:
        """The step used in training, with all its metrics and checks."""
        parts = build_step(self._config, self._info, self._mesh)
        state = create_train_state(self._variables, parts.tx, ema=False, mesh=self._mesh)
        self._variables = None  # the state has its own

        def step() -> None:
            nonlocal state
            state, metrics = parts.train_step(state, batch)
            jax.block_until_ready((state, metrics))

        return step
