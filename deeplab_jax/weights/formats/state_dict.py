"""Finds the tensors described by a checkpoint's pickle: a state dict, bare, wrapped, or within a whole module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from deeplab_jax.weights.formats.arrays import UnsuitableError
from deeplab_jax.weights.formats.budget import spend
from deeplab_jax.weights.formats.contents import Contents
from deeplab_jax.weights.formats.pickle_machine import Global, Inert

# Keys under which training scripts store the weights, next to optimizer and epoch: the first with any tensor is used.
WRAPPERS = (
    "state_dict",
    "model_state",
    "model",
    "model_state_dict",
    "params",
    "net",
    "network",
    "weights",
    "blobs",
    "state_dict_ema",
    "ema",
    "model_ema",
    "ema_state_dict",
    "model_state_dict_ema",
    "params_ema",
)
# Keys under which they store what they were told: the first that holds plain values is read.
SETTINGS = ("hyper_parameters", "hparams", "config", "cfg", "args", "meta")
_MODULE_PARTS = ("_modules", "_parameters", "_buffers")  # where a pickled torch.nn.Module stores them
# More than any checkpoint needs, few enough to finish soon: a pickle of a hundred bytes may describe 2^100 paths.
_MAX_DEPTH = 64
_MAX_VALUES = 100_000
_ENTRY_BYTES = 16  # counted each time that a mapping is walked
_MAX_SETTINGS, _MAX_SETTINGS_DEPTH = 10_000, 8

Decoder = Callable[[Any], np.ndarray | None]


def find_arrays(tree: Any, decode: Decoder, *, follow: bool = True) -> Contents:
    """The tensors of a checkpoint by name, and the settings beside them.

    Follows the keys in WRAPPERS to any depth; joins nested names by '.'; drops everything that is not a tensor. For a
    whole pickled module, names are those of its state dict.

    Args:
      tree: as `read_pickle` returns it.
      decode: returns the array that an object describes, or None if it does not describe a tensor.
      follow: False: all tensors of the file, whatever their keys.

    Raises:
      ValueError: by `decode`, or if there is no tensor in the tree.
    """
    if isinstance(tree, list | tuple):  # (state dict, epoch), as some scripts save them
        tree = {index: value for index, value in enumerate(tree) if _mapping(value) or _attributes(value)}
    taken, arrays = _Search(decode).arrays(tree, _MAX_DEPTH, follow=follow)
    if not arrays:
        raise UnsuitableError("holds no tensors; save a state dict with torch.save(model.state_dict(), ...)")
    others = tuple(key for key in WRAPPERS if taken and key != taken[0] and _holds_arrays(_mapping(tree).get(key)))
    for key in SETTINGS:
        settings = _Settings().plain(_mapping(tree).get(key), _MAX_SETTINGS_DEPTH)
        if settings and isinstance(settings, dict):
            return Contents(arrays, ".".join(taken), others, settings, key)
    return Contents(arrays, ".".join(taken), others)


class _Search:
    """One traversal, with a limited number of steps."""

    def __init__(self, decode: Decoder) -> None:
        self.decode = decode
        self.num_values = 0

    def arrays(self, tree: Any, depth: int, *, follow: bool) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        """(keys that were followed, tensors by name)."""
        self._count(depth)
        for key in WRAPPERS if follow else ():
            inner = _mapping(tree).get(key)
            if _mapping(inner) or _attributes(inner):
                taken, arrays = self.arrays(inner, depth - 1, follow=follow)
                if arrays:
                    return (key, *taken), arrays
        return (), {".".join(path): array for path, array in self._leaves(tree, (), depth)}

    def _leaves(self, node: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        self._count(depth)
        array = self.decode(node)
        if array is not None:
            yield path, array
            return
        entries = _mapping(node) or _attributes(node)
        spend(_ENTRY_BYTES * len(entries))
        for key, value in entries.items():
            inner = path if key in _MODULE_PARTS else (*path, str(key))
            if isinstance(value, dict | Inert):
                yield from self._leaves(value, inner, depth - 1)

    def _count(self, depth: int) -> None:
        self.num_values += 1
        if depth == 0 or self.num_values > _MAX_VALUES:
            raise ValueError("a pickle nested without end")


def _holds_arrays(node: Any) -> bool:
    """Whether a wrapper's value looks like weights: entries that are no plain values."""
    entries = _mapping(node) or _attributes(node)
    return any(isinstance(value, dict | Inert) for value in entries.values())


class _Settings:
    """The plain values of what was stored beside the weights; anything else is left out."""

    def __init__(self) -> None:
        self.num_values = 0

    def plain(self, node: Any, depth: int) -> Any:
        """The values of a dict, or of an object's attributes (argparse.Namespace); None for what has none."""
        self.num_values += 1
        if depth == 0 or self.num_values > _MAX_SETTINGS or isinstance(node, Global):
            return None
        if isinstance(node, str | int | float | bool):
            return node
        if isinstance(node, list | tuple):
            return [self.plain(value, depth - 1) for value in node[:_MAX_SETTINGS]]
        found = {str(key): self.plain(value, depth - 1) for key, value in (_mapping(node) or _attributes(node)).items()}
        return {key: value for key, value in found.items() if value is not None} or None


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
