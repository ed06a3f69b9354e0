"""Finds the tensors described by a checkpoint's pickle: a state dict, bare, wrapped, or within a whole module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from deeplab_jax.weights.formats.arrays import UnsuitableError
from deeplab_jax.weights.formats.pickle_machine import Inert

# Keys under which training scripts store the weights, next to optimizer and epoch: the first with any tensor is used.
WRAPPERS = (
    "state_dict",
    "model_state",
    "model",
    "model_state_dict",
    "params",
    "net",
    "weights",
    "blobs",
    "state_dict_ema",
    "ema",
)
_MODULE_PARTS = ("_modules", "_parameters", "_buffers")  # where a pickled torch.nn.Module stores them
_DATA_PARALLEL = "module."
# More than any checkpoint needs, few enough to finish soon: a pickle of a hundred bytes may describe 2^100 paths.
_MAX_DEPTH = 64
_MAX_VALUES = 100_000

Decoder = Callable[[Any], np.ndarray | None]


def find_arrays(tree: Any, decode: Decoder) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by name.

    Follows the keys in WRAPPERS to any depth; joins nested names by '.'; drops everything that is not a tensor, and
    DataParallel's 'module.' if all names have it. For a whole pickled module, names are those of its state dict.

    Args:
      tree: as `read_pickle` returns it.
      decode: returns the array that an object describes, or None if it does not describe a tensor.

    Raises:
      ValueError: by `decode`, or if there is no tensor in the tree.
    """
    arrays = _Search(decode).arrays(tree, _MAX_DEPTH)
    if not arrays:
        raise UnsuitableError("holds no tensors; save a state dict with torch.save(model.state_dict(), ...)")
    if all(name.startswith(_DATA_PARALLEL) for name in arrays):
        arrays = {name.removeprefix(_DATA_PARALLEL): array for name, array in arrays.items()}
    return arrays


class _Search:
    """One traversal, with a limited number of steps."""

    def __init__(self, decode: Decoder) -> None:
        self.decode = decode
        self.num_values = 0

    def arrays(self, tree: Any, depth: int) -> dict[str, np.ndarray]:
        self._count(depth)
        for key in WRAPPERS:
            inner = _mapping(tree).get(key)
            if _mapping(inner) or _attributes(inner):
                arrays = self.arrays(inner, depth - 1)
                if arrays:
                    return arrays
        return {".".join(path): array for path, array in self._leaves(tree, (), depth)}

    def _leaves(self, node: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        self._count(depth)
        array = self.decode(node)
        if array is not None:
            yield path, array
            return
        for key, value in (_mapping(node) or _attributes(node)).items():
            inner = path if key in _MODULE_PARTS else (*path, str(key))
            if isinstance(value, dict | Inert):
                yield from self._leaves(value, inner, depth - 1)

    def _count(self, depth: int) -> None:
        self.num_values += 1
        if depth == 0 or self.num_values > _MAX_VALUES:
            raise ValueError("a pickle nested without end")


def _mapping(node: Any) -> dict[Any, Any]:
    """The entries of a dict or OrderedDict."""
    if isinstance(node, dict):
        return node
    if not isinstance(node, Inert):
        return {}
    return _pairs(node) | node.entries


def _pairs(node: Inert) -> dict[Any, Any]:
    """The constructor argument of an OrderedDict pickled by Python 2."""
    pairs = node.arguments[0] if len(node.arguments) == 1 else None
    if node.name != "collections.OrderedDict" or not isinstance(pairs, list):
        return {}
    return {
        pair[0]: pair[1] for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2 and _is_name(pair[0])
    }


def _is_name(key: Any) -> bool:
    return isinstance(key, str | int)


def _attributes(node: Any) -> dict[Any, Any]:
    return node.state if isinstance(node, Inert) and isinstance(node.state, dict) else {}
