"""PASCAL-Context with only its 59 classes, background ignored: see `pascal_context`."""

from __future__ import annotations

from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.datasets import pascal_context

INFO = make_info("pascal_context_59", pascal_context.INFO.class_names[1:], pascal_context.INFO.palette[1:])


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens PASCAL-Context with 59 classes at `root`.

    Raises:
      UserError: if `root` does not contain it; says which files are needed.
    """
    return pascal_context.open_classes(INFO, root, prepared_dir)
