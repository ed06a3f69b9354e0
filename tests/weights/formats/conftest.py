"""What the readers' tests share: reading in little memory, and cutting files short."""

import contextlib
import pathlib
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from deeplab_jax.types import UserError
from deeplab_jax.weights.formats.read import read_arrays

MAX_CUTS = 150
MAX_BYTES = 20_000_000  # the files here have some thousand; a size that lies would ask for more than this


def _read_in_little_memory(path: pathlib.Path) -> dict[str, np.ndarray]:
    tracemalloc.start()
    try:
        return read_arrays(path)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MAX_BYTES


@pytest.fixture
def refused() -> Callable[[pathlib.Path], str]:
    """Reads a file that must be refused, and returns the one line that says why."""

    def read(path: pathlib.Path) -> str:
        with pytest.raises(UserError) as error:
            _read_in_little_memory(path)
        text = str(error.value)
        assert "\n" not in text
        assert str(path) in text
        return text

    return read


@pytest.fixture
def refused_when_cut(refused) -> Callable[[pathlib.Path], None]:
    """Cuts a file short at many places; it must be refused each time, and nothing else may happen."""

    def cut(path: pathlib.Path) -> None:
        whole = path.read_bytes()
        read_arrays(path)
        for num_bytes in range(0, len(whole), max(1, len(whole) // MAX_CUTS)):
            path.write_bytes(whole[:num_bytes])
            refused(path)
        path.write_bytes(whole)

    return cut


@pytest.fixture
def never_fatal(rng) -> Callable[[pathlib.Path], None]:
    """Changes bytes of a file at random; it may then be read or refused, but nothing else may happen."""

    def damage(path: pathlib.Path) -> None:
        whole = path.read_bytes()
        for _ in range(MAX_CUTS):
            octets = bytearray(whole)
            for position in rng.integers(len(whole), size=3):
                octets[position] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.integers(256)])
            path.write_bytes(octets)
            with contextlib.suppress(UserError):
                _read_in_little_memory(path)
        path.write_bytes(whole)

    return damage
