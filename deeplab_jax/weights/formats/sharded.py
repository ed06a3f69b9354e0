"""Weights in several files: an index in JSON says which file holds which array (Hugging Face)."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from deeplab_jax.weights.formats.arrays import UnsuitableError

SUFFIX = ".index.json"
_MAP = "weight_map"
_MAX_INDEX_BYTES = 100_000_000


def read(
    path: str | os.PathLike[str], read_shard: Callable[[pathlib.Path], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that the index names, each from its file beside the index.

    Args:
      path: of the index.
      read_shard: returns the arrays of one file.

    Raises:
      ValueError: if the index is damaged, or a file lacks an array that it should hold.
    """
    path = pathlib.Path(path)
    if path.stat().st_size > _MAX_INDEX_BYTES:
        raise ValueError("an index that is too long")
    try:
        names = json.loads(path.read_text(encoding="utf-8"))[_MAP]
    except (KeyError, TypeError, RecursionError):
        raise ValueError(f"an index without '{_MAP}'") from None
    if not isinstance(names, dict) or not all(isinstance(shard, str) and _is_beside(shard) for shard in names.values()):
        raise ValueError(f"'{_MAP}' does not name files of the index's folder")
    arrays: dict[str, np.ndarray] = {}
    for shard in dict.fromkeys(names.values()):
        file = path.with_name(shard)
        if not file.is_file():
            raise UnsuitableError(f"names '{shard}', which is not beside it; fetch that file too")
        found = read_shard(file)
        wanted = [name for name, where in names.items() if where == shard]
        if missing := [name for name in wanted if name not in found]:
            raise ValueError(f"'{shard}' lacks '{missing[0]}'")
        arrays |= {name: found[name] for name in wanted}
    return arrays


def _is_beside(name: str) -> bool:
    """Whether it is the plain name of a file: an index must not read elsewhere."""
    return name == pathlib.PurePath(name).name and "\\" not in name and name not in ("", ".", "..")
