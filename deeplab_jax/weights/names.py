"""How systems name the arrays of one layer: what the layouts write their rules with."""

from __future__ import annotations

import dataclasses
import re

from deeplab_jax.types import ArrayShapes, WeightRule


@dataclasses.dataclass(frozen=True, slots=True)
class Naming:
    """Endings of the names of a convolution's and a batch norm's arrays, as regular expressions."""

    kernel: str
    depthwise_kernel: str
    bias: str
    norm: tuple[str, str, str, str]  # scale, bias, mean, var
    axes: str  # of kernels; see weights/rules.py
    depthwise_axes: str

    def conv(self, source: str, target: str, *, bias: bool = False, channels: str = "") -> tuple[WeightRule, ...]:
        """Rules of a convolution: `source` matches its name, `target` is our module.

        Args:
          source: regular expression with groups.
          target: path of our module, '{1}' for groups.
          bias: whether it has one.
          channels: an order of input channels, as weights/rules.py knows them.
        """
        transform = f"{self.axes}+{channels}" if channels else self.axes
        rules = [WeightRule(source + self.kernel, f"params/{target}/kernel", transform)]
        if bias:
            rules.append(WeightRule(source + self.bias, f"params/{target}/bias", "copy"))
        return tuple(rules)

    def depthwise(self, source: str, target: str) -> tuple[WeightRule, ...]:
        """Rules of a depthwise convolution without bias."""
        path = f"params/{target}/depthwise_kernel"
        return (WeightRule(source + self.depthwise_kernel, path, self.depthwise_axes),)

    def batch_norm(self, source: str, target: str) -> tuple[WeightRule, ...]:
        """Rules of a batch norm."""
        leaves = ("params", "scale"), ("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var")
        return tuple(
            WeightRule(source + ending, f"{collection}/{target}/{leaf}", "copy")
            for ending, (collection, leaf) in zip(self.norm, leaves, strict=True)
        )

    def conv_norm(self, conv: str, norm: str, target: str, *, channels: str = "") -> tuple[WeightRule, ...]:
        """Rules of our ConvNorm: a convolution named `conv` and the batch norm `norm` behind it."""
        return self.conv(conv, f"{target}/conv", channels=channels) + self.batch_norm(norm, f"{target}/norm")

    def depthwise_norm(self, conv: str, norm: str, target: str) -> tuple[WeightRule, ...]:
        """Rules of our depthwise ConvNorm."""
        return self.depthwise(conv, f"{target}/conv") + self.batch_norm(norm, f"{target}/norm")


TORCH = Naming(
    kernel=r"\.weight",
    depthwise_kernel=r"\.weight",
    bias=r"\.bias",
    norm=(r"\.weight", r"\.bias", r"\.running_mean", r"\.running_var"),
    axes="oihw",
    depthwise_axes="oihw",
)
TORCH_COUNTERS = r".*\.num_batches_tracked"  # to be ignored

SLIM = Naming(
    kernel="/weights",
    depthwise_kernel="/depthwise_weights",
    bias="/biases",
    norm=("/gamma", "/beta", "/moving_mean", "/moving_variance"),
    axes="copy",
    depthwise_axes="hwc1",
)


def require(shapes: ArrayShapes, name: str) -> tuple[int, ...]:
    """The shape of `name`.

    Raises:
      ValueError: where it is not there: the file is of another layout.
    """
    if name not in shapes:
        raise ValueError(f"there is no '{name}'")
    return shapes[name]


def count(shapes: ArrayShapes, pattern: str) -> int:
    """How many different values the first group of `pattern` takes over the names that it matches whole."""
    return len({match[1] for name in shapes if (match := re.fullmatch(pattern, name))})
