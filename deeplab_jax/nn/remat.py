"""Rematerialisation by name: recomputes the activations of parts of a network instead of storing them.

The activations that the forward pass stores for the backward pass are most of a train step's memory. A rematerialised
part stores only its input and runs forward again when its gradient is computed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Num

from deeplab_jax.types import ApplyFn, UserError, Variables


def rematerialized(apply_fn: ApplyFn, patterns: Sequence[str]) -> ApplyFn:
    """`apply_fn` with the parts rematerialised whose whole path matches a pattern; the results are the same.

    Args:
      patterns: regular expressions on paths like 'backbone/block3_unit1' or 'head/aspp'. Of nested parts the outermost
        match counts: 'backbone/.*' means each unit of the backbone, 'backbone' the whole backbone at once, which saves
        little, since its backward pass stores all activations again.

    Raises:
      UserError: when a pattern is not a regular expression; raised by the returned function when a pattern matches no
        part.
    """
    if not patterns:
        return apply_fn
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise UserError(f"config.model.remat={tuple(patterns)}: no regular expression ({error})") from None

    def apply(
        variables: Variables, images: Num[Array | np.ndarray, "b h w bands"], *, train: bool, **recording: Any
    ) -> Any:
        wrapper = _Wrapper(compiled)
        with nn.intercept_methods(wrapper):
            result = apply_fn(variables, images, train=train, **recording)
        wrapper.check()
        return result

    return apply


class _Wrapper:
    """Intercepts the calls of all modules while a network is traced."""

    def __init__(self, patterns: Sequence[re.Pattern[str]]) -> None:
        self._patterns = patterns
        self._unmatched = {pattern.pattern for pattern in patterns}
        self._seen: list[str] = []
        self._inside = False

    def __call__(self, call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        # A module that validates itself on construction calls methods before it is part of the network.
        path = "/".join(context.module.path) if context.module.scope else ""
        if self._inside or context.method_name != "__call__" or not path:
            return call(*args, **kwargs)
        self._seen.append(path)
        matching = {pattern.pattern for pattern in self._patterns if pattern.fullmatch(path)}
        if not matching:
            return call(*args, **kwargs)
        self._unmatched -= matching
        with self._within():
            # A differentiated function takes only arrays as arguments; others, such as `train`, are bound.
            return nn.remat(lambda module, *arrays: module(*arrays, **kwargs))(context.module, *args)

    def check(self) -> None:
        if self._unmatched:
            wrong, near = sorted(self._unmatched)[0], ", ".join(dict.fromkeys(self._seen[:6]))
            raise UserError(f"config.model.remat: '{wrong}' matches no part of the network; paths look like {near}")

    @contextlib.contextmanager
    def _within(self) -> Iterator[None]:
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
