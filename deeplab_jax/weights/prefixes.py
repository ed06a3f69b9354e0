"""Names under which wrappers hide a network: 'module.', '_orig_mod.', 'model.', 'net.', and any other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

# Components that parallel, compiled and checkpointed modules put anywhere into a name.
_TRANSPARENT = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_COMPONENT = re.compile(rf"(?<![^.])(?:{'|'.join(_TRANSPARENT)})\.")
_SEPARATOR = re.compile(r"[./]")
_MAX_DEPTH = 5
_MIN_ARRAYS = 8  # of anything that is worth to be called a network

T = TypeVar("T")


def without_wrappers(arrays: Mapping[str, T]) -> tuple[dict[str, T], str]:
    """(arrays by names without the components of parallel and compiled modules, what was taken out of most names).

    Names that would become one are left as they are, all of them.
    """
    renamed = {_COMPONENT.sub("", name): array for name, array in arrays.items()}
    if len(renamed) < len(arrays) or renamed.keys() == arrays.keys():
        return dict(arrays), ""
    removed = Counter("".join(found) for name in arrays if (found := _COMPONENT.findall(name)))
    return renamed, removed.most_common(1)[0][0]


def prefix_levels(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The prefixes that may lead to a network, from the shortest on: ('',), ('model.', 'ema.'), ('model.net.',), ..."""
    yield ("",)
    for depth in range(1, _MAX_DEPTH + 1):
        counts: Counter[str] = Counter()
        for name in names:
            ends = [match.end() for match in _SEPARATOR.finditer(name)]
            if len(ends) >= depth:
                counts[name[: ends[depth - 1]]] += 1
        if level := tuple(prefix for prefix, count in counts.items() if count >= _MIN_ARRAYS):
            yield level


def under(arrays: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The arrays whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def roots(names: Iterable[str]) -> dict[str, int]:
    """First component of the names -> how many have it."""
    return dict(Counter(_SEPARATOR.split(name, maxsplit=1)[0] for name in names))
