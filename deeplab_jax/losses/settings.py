"""Settings of the loss."""

import dataclasses
import math
from dataclasses import field
from typing import Any

from deeplab_jax.fields import above, at_least, checked, within

CROSS_ENTROPIES = {
    "multiclass": "cross_entropy.softmax_cross_entropy",
    "binary": "cross_entropy.sigmoid_cross_entropy",
    "multilabel": "cross_entropy.sigmoid_cross_entropy",
}  # by task
WEIGHTINGS = ("balanced", "effective_number")  # class weights that follow from the training split


def _are_class_weights(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("", *WEIGHTINGS)
    numbers = list(value.values()) if isinstance(value, dict) else value
    return isinstance(numbers, (list, tuple)) and all(
        isinstance(number, (int, float)) and 0 <= number < math.inf for number in numbers
    )


@dataclasses.dataclass(slots=True)
class AddedLoss:
    """A further loss; its fields are those of `LossConfig`."""

    name: str = ""
    factor: float = above(0, default=1.0)
    args: dict[str, Any] = field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class LossConfig:
    """A weighted sum of losses."""

    name: str = ""  # in deeplab_jax/losses; '': the cross-entropy of the task, of a softmax or of sigmoids
    args: dict[str, Any] = field(default_factory=dict)  # of this loss only, e.g. {"label_smoothing": 0.1}
    factor: float = above(0, default=1.0)  # weight of this loss in the sum
    added: tuple[AddedLoss, ...] = ()  # the other losses of the sum; they share the fields below
    # One number per class; {class: number}, the others being 1; or a rule that computes them from the training split.
    class_weights: object = checked(
        _are_class_weights,
        f"numbers that are not negative, one per class or by its name, or {' or '.join(WEIGHTINGS)}",
        default=(),
    )
    # Share of each image's pixels that count, hardest first.
    top_k_fraction: float = within(0, 1, open_low=True, default=1.0)
    top_k_ramp_steps: int = at_least(0, default=0)  # steps over which the share falls from 1 to top_k_fraction
    # Weight of the loss of each side output: the auxiliary head's, and those of model.scales.
    side_weight: float = at_least(0, default=1.0)
