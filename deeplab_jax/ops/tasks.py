"""What logits mean, by task: classes that exclude each other, an object and its background, or classes that overlap.

Logits become probabilities, one for each class, and these a prediction. The rest of the project is the same for all
tasks wherever it works on probabilities: a binary network's single logit is that of the object beside a background of
logit 0, so that its two probabilities go where those of two classes go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

# Class ids; where classes overlap, which of them there are.
Prediction: TypeAlias = Integer[np.ndarray, "h w"] | Bool[np.ndarray, "h w c"]

EVEN = 0.5  # the threshold of a probability where nothing else is found or said


class Task(NamedTuple):
    """The steps from logits to a prediction; the functions take arrays of JAX and of NumPy alike.

    Attributes:
      probabilities: logits [..., outputs] -> probabilities [..., classes].
      decide: probabilities [..., classes], thresholds -> prediction. A class of a sigmoid is there where its
        probability is above the threshold: one for all classes, or one for each.
      likeliest: logits -> the prediction at even odds.
    """

    probabilities: Callable[[Any], Any]
    decide: Callable[[Any, Sequence[float]], Any]
    likeliest: Callable[[Any], Any]


def id_type(num_classes: int) -> type[np.unsignedinteger[Any] | np.signedinteger[Any]]:
    """The dtype of class ids: uint8 if it suffices."""
    return np.uint8 if num_classes <= 256 else np.int32


def _argmax(scores: Any, thresholds: Sequence[float] = ()) -> Any:
    return scores.argmax(axis=-1).astype(id_type(scores.shape[-1]))


def _two_probabilities(logits: Float[Array, "*b h w 1"]) -> Float[Array, "*b h w 2"]:
    return jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=-1))


def _object_above(probabilities: Any, thresholds: Sequence[float]) -> Any:
    return (probabilities[..., 1] > np.float32(thresholds[0])).astype(np.uint8)


def _each_above(probabilities: Any, thresholds: Sequence[float]) -> Any:
    return probabilities > np.asarray(thresholds, np.float32).reshape([1] * (probabilities.ndim - 1) + [-1])


_TASKS: Mapping[str, Task] = {
    "multiclass": Task(jax.nn.softmax, _argmax, _argmax),
    "binary": Task(_two_probabilities, _object_above, lambda logits: (logits[..., 0] > 0).astype(np.uint8)),
    "multilabel": Task(jax.nn.sigmoid, _each_above, lambda logits: logits > 0),
}


def find_task(name: str) -> Task:
    """The task called `name`, one of `types.TASKS`."""
    return _TASKS[name]
