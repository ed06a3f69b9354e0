"""PyTorch tensors as NumPy arrays: a pickle describes a tensor as a strided view of a storage.

Source: torch/_utils.py, torch/serialization.py of PyTorch 0.4 to 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from deeplab_jax.weights.formats.arrays import ITEM_SIZES, UnsuitableError, num_elements
from deeplab_jax.weights.formats.budget import spend
from deeplab_jax.weights.formats.numpy_pickle import decode_array
from deeplab_jax.weights.formats.pickle_machine import Global, Inert, Persistent

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_DTYPES = {"torch.uint16": "uint16", "torch.uint32": "uint32", "torch.uint64": "uint64"} | {
    f"torch.{scalar}": scalar for scalar in _STORAGES.values()
}
_REBUILD = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_REBUILD_AS = "torch._utils._rebuild_tensor_v3"  # with a dtype, on untyped storage
_REBUILD_PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_REBUILD_SUBCLASS = "torch._tensor._rebuild_from_type_v2"


@dataclasses.dataclass(frozen=True, slots=True)
class StorageKey:
    """A pickle's reference to a storage outside it."""

    name: str
    scalar: str
    num_elements: int
    view: tuple[int, int] | None  # offset and size within the storage, in some old files


def is_storage(reference: Persistent) -> bool:
    """Whether a reference is to a storage; legacy files also have references to the source of pickled modules."""
    return isinstance(reference.key, tuple) and reference.key[:1] == ("storage",)


def storage_key(reference: Persistent) -> StorageKey:
    """Reads ('storage', type, name, device, number of elements[, view]).

    Raises:
      ValueError: if it is not a reference to a storage of plain numbers.
    """
    match reference.key:
        case ("storage", Global() as kind, str(name), _, int(count), *rest) if count >= 0:
            scalar = _STORAGES.get(kind.rpartition(".")[2].removeprefix("_"))
        case _:
            raise ValueError("a reference to something other than a storage")
    if scalar is None:
        raise UnsuitableError(f"holds tensors of {kind}; save a state dict of float tensors")
    match rest:
        case [(_, int(offset), int(size))] if 0 <= offset <= offset + size <= count:
            return StorageKey(name, scalar, count, (offset, size))
        case [] | [None]:
            return StorageKey(name, scalar, count, None)
    raise ValueError("a view outside its storage")


class TensorDecoder:
    """Converts descriptions of tensors to arrays; each storage is fetched once, however many tensors share it.

    Attributes:
      fetch: returns a whole storage as a one-dimensional array.
    """

    def __init__(self, fetch: Callable[[StorageKey], np.ndarray]) -> None:
        self._fetch = fetch
        self._storages: dict[StorageKey, np.ndarray] = {}

    def __call__(self, value: Any) -> np.ndarray | None:
        """The tensor (or NumPy array) that `value` describes, or None if it describes something else.

        Raises:
          ValueError: if the tensor exceeds its storage, or is sparse, quantised or the like.
        """
        value = _without_class(value)
        if not isinstance(value, Inert):
            return None
        if value.name in _REBUILD:
            return self._tensor(value.arguments[:4], None)
        if value.name == _REBUILD_AS:
            return self._tensor(value.arguments[:4], value.arguments[6] if len(value.arguments) > 6 else "")
        if value.name.startswith("torch._utils._rebuild_"):
            kind = value.name.removeprefix("torch._utils._rebuild_")
            raise UnsuitableError(
                f"holds a tensor that is not plain ({kind}); save a state dict of dense float tensors"
            )
        return decode_array(value)

    def _tensor(self, arguments: tuple[Any, ...], dtype: Any) -> np.ndarray:
        if len(arguments) < 4 or not isinstance(arguments[0], Persistent):
            raise ValueError("a tensor without its storage")
        reference, offset, size, stride = arguments
        key = storage_key(reference)
        if dtype is not None:
            key = _with_dtype(key, dtype)
        if key not in self._storages:
            self._storages[key] = self._fetch(key)
        storage = self._storages[key]
        if key.view is not None:
            storage = storage[key.view[0] : sum(key.view)]
        return _strided(storage, offset, _sizes(size), _sizes(stride))


def _without_class(value: Any) -> Any:
    """The plain tensor within a parameter, or within a tensor of a subclass."""
    while isinstance(value, Inert) and value.arguments:
        spend()
        if value.name in _REBUILD_PARAMETER:
            value = value.arguments[0]
        elif value.name == _REBUILD_SUBCLASS and len(value.arguments) > 2 and isinstance(value.arguments[0], Global):
            arguments = value.arguments[2]
            value = Inert(value.arguments[0], arguments if isinstance(arguments, tuple) else ())
        else:
            break
    return value


def _with_dtype(key: StorageKey, dtype: Any) -> StorageKey:
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise UnsuitableError(f"holds tensors of {dtype or 'no dtype'}; save a state dict of float tensors")
    scalar = _DTYPES[dtype]
    return StorageKey(key.name, scalar, key.num_elements // ITEM_SIZES[scalar], None)


def _sizes(value: Any) -> tuple[int, ...]:
    """A tuple of sizes or strides, or a torch.Size of them."""
    if isinstance(value, Inert) and value.name == "torch.Size" and len(value.arguments) == 1:
        value = value.arguments[0]
    num_elements(value)  # raises for invalid sizes
    return tuple(value)


def _strided(storage: np.ndarray, offset: Any, size: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    """The view of a storage; it cannot exceed the storage, whatever the file says."""
    if type(offset) is not int or offset < 0 or len(size) != len(stride):
        raise ValueError("a tensor without offset, size or stride")
    count = num_elements(size)
    if count == 0:
        return storage[:0].reshape(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if last >= storage.size:
        raise ValueError("a tensor that reaches beyond its storage")
    if count > storage.size:
        raise UnsuitableError("holds a tensor that repeats its elements; save tensor.contiguous()")
    spend(count * storage.itemsize)
    strides = tuple(step * storage.itemsize if length > 1 else 0 for length, step in zip(size, stride, strict=True))
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)
