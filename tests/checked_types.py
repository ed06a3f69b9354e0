"""The checker of annotations in the tests: beartype, which is told what static checkers and JAX take for granted."""

from __future__ import annotations

import io
from typing import IO

from beartype import BeartypeConf, FrozenDict, beartype
from jax import export

_SYMBOL = type(export.symbolic_shape("size")[0])  # what a size is in a program that is exported for all sizes

check = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,  # an int is a float
        hint_overrides=FrozenDict({int: int | _SYMBOL, IO[bytes]: io.IOBase}),
    )
)
