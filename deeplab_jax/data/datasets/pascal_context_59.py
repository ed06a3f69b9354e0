"""PASCAL-Context with its 59 classes alone, background ignored: see `pascal_context`."""

from __future__ import annotations

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.datasets.pascal_context import open_classes


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens PASCAL-Context with 59 classes at `root`.

    Raises:
      UserError: when `root` does not hold it; says what to put where.
    """
    return open_classes("pascal_context_59", root, prepared_dir, with_background=False)
