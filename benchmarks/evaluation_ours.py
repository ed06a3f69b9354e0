"""This project's side of benchmarks/evaluate_folder.py: the code of --mode=evaluate, with an imported network."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from benchmarks.pairs import peak_bytes, reset_peak, turn_seconds
from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.evaluation import make_evaluator
from deeplab_jax.apps.import_weights import import_checkpoint
from deeplab_jax.config import Config, DataConfig, InferenceConfig
from deeplab_jax.ops.mesh import make_mesh, replicated


class Evaluation:
    """A network, a folder, and passes over it."""

    def __init__(
        self, weights: str, root: str, prepared_dir: str, split: str, size: tuple[int, int], batch_size: int, dtype: str
    ) -> None:
        """Imports `weights`, the peer's file, and opens `root`, a data set 'folder'; images are padded to `size`."""
        model, variables = import_checkpoint(weights, layout="")
        config = Config(
            model=dataclasses.replace(model, compute_dtype=dtype),
            data=DataConfig(dataset="folder", root=root, prepared_dir=prepared_dir, eval_split=split),
            inference=InferenceConfig(batch_size=batch_size, pad_to=size),
        )
        dataset, mesh = open_data.open_dataset(config), make_mesh(1)
        self._run = make_evaluator(config, network.build(config, dataset.info), dataset, mesh)
        self._variables = jax.device_put(variables, replicated(mesh))

    def confusion(self) -> np.ndarray:
        """The confusion matrix of one pass; rows are the truth."""
        return self._run(self._variables).confusion

    def turn(self) -> float:
        """Seconds of one pass."""
        return turn_seconds(lambda: self._run(self._variables).scores["mean_iou"])

    def reset_memory(self) -> None:
        """Resets the peak."""
        reset_peak()

    def memory(self) -> int:
        """Peak bytes of this process, or of the GPU if there is one."""
        statistics = jax.local_devices()[0].memory_stats()
        return statistics["peak_bytes_in_use"] if statistics else peak_bytes()

    def device(self) -> str:
        """The device's name."""
        return jax.local_devices()[0].device_kind
