"""Settings of the optimiser and of the training loop."""

import dataclasses
from typing import Any

from deeplab_jax.fields import above, at_least, checked, each_at_least, within

RULES = ("sgd", "adamw", "lars", "lamb")
SCHEDULES = ("poly", "step", "cosine", "exponential", "one_cycle", "constant")


@dataclasses.dataclass(slots=True)
class OptimizerConfig:
    """The update rule and the learning rate's schedule."""

    # 'lars' and 'lamb' are for large batches; 'optax:lion', 'optax:contrib.muon': any factory with a learning rate.
    name: str = checked(
        lambda name: name in RULES or ":" in name, f"{', '.join(RULES)} or 'package.module:factory'", default="sgd"
    )
    args: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the rule: {"b2": 0.95}, {"nesterov": True}
    learning_rate: float = above(0, default=0.007)
    # A function of train/schedules.py, or 'package.module:factory' from anywhere; v1 used 'step'.
    schedule: str = checked(
        lambda name: name in SCHEDULES or ":" in name,
        f"{', '.join(SCHEDULES)} or 'package.module:factory'",
        default="poly",
    )
    end_learning_rate: float = at_least(0, default=0.0)  # of 'poly', 'cosine' and 'exponential'
    poly_power: float = at_least(0, default=0.9)
    step_size: int = at_least(1, default=2_000)  # of 'step' and 'exponential': steps to the next factor
    step_factor: float = above(0, default=0.1)  # factor on the learning rate
    warmup_steps: int = at_least(0, default=0)  # linear, from 0
    momentum: float = within(0, 1, open_high=True, default=0.9)
    weight_decay: float = at_least(0, default=4e-5)  # on kernels, but not on depthwise ones
    decay_depthwise: bool = False  # decay depthwise kernels too
    decay_all: bool = False  # decay every parameter, batch norm's and biases too, as recipes in PyTorch do
    # Norm of a LARS step relative to the kernel's norm, per unit of learning rate.
    trust_coefficient: float = above(0, default=0.001)
    # Regular expression on parameter paths ('backbone/...') -> factor on the learning rate; the first match counts,
    # else 1; 0 freezes.
    learning_rate_multipliers: dict[str, float] = each_at_least(0, default={}, words="0 or more each")  # noqa: RUF009
    clip_value: float = at_least(0, default=0.0, words="0 (no bound) or positive")  # bound on each of its numbers
    clip_norm: float = at_least(0, default=0.0, words="0 (no bound) or positive")  # bound on the gradient's global norm


@dataclasses.dataclass(slots=True)
class TrainConfig:
    """Length of training and intervals, in steps."""

    num_steps: int = at_least(1, default=30_000)
    accumulation_steps: int = at_least(1, default=1)  # slices of the batch computed one after another for one update
    # Weight of the OLD value in the moving average of the parameters; 0: no average.
    ema_decay: float = within(0, 1, open_high=True, default=0.0)
    max_nonfinite_steps: int = at_least(1, default=3)  # consecutive skipped updates that end the run
    debug_nonfinite: bool = False  # name the module and the file where a skipped update began; slower
    log_every: int = at_least(1, default=50)
    eval_every: int = at_least(1, default=1_000)
    # Evaluations in a row without a new best mean IoU after which the run ends; 0: it never ends early.
    patience: int = at_least(0, default=0)
    checkpoint_every: int = at_least(1, default=1_000)
    keep_checkpoints: int = at_least(1, default=2)  # most recent ones, in addition to the best
