"""Pickles of NumPy arrays: Detectron2's model zoo ({'model': {name: array}, ...}), Detectron's, Caffe2's, Paddle's.

Nothing in the file is executed; see pickle_machine.py.
"""

from __future__ import annotations

import io
import os
import pathlib

from deeplab_jax.weights.formats.contents import Contents
from deeplab_jax.weights.formats.numpy_pickle import decode_array
from deeplab_jax.weights.formats.pickle_machine import read_pickle
from deeplab_jax.weights.formats.state_dict import find_arrays


def read(path: str | os.PathLike[str], *, follow: bool = True) -> Contents:
    """The arrays by name, found as in `find_arrays`.

    Raises:
      ValueError: if the pickle is damaged or contains no numeric arrays.
    """
    tree, _ = read_pickle(io.BytesIO(pathlib.Path(path).read_bytes()))
    return find_arrays(tree, decode_array, follow=follow)
