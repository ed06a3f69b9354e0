"""How each system names a layer's arrays, and helpers to write a layout's rules."""

from __future__ import annotations

import dataclasses
import re

from deeplab_jax.types import ArrayShapes, WeightRule


@dataclasses.dataclass(frozen=True, slots=True)
class Naming:
    """Name suffixes of a convolution's and a batch norm's arrays, as regular expressions."""

    kernel: str
    depthwise_kernel: str
    bias: str
    norm: tuple[str, str, str, str]  # scale, bias, mean, var
    axes: str  # of kernels; see weights/rules.py
    depthwise_axes: str

    def conv(self, source: str, target: str, *, bias: bool = False, channels: str = "") -> tuple[WeightRule, ...]:
        """Rules for a convolution: `source` matches its name, `target` is our module.

        Args:
          source: regular expression with groups.
          target: path of our module, with '{1}' for a group.
          channels: an order of input channels; see weights/rules.py.
        """
        transform = f"{self.axes}+{channels}" if channels else self.axes
        rules = [WeightRule(source + self.kernel, f"params/{target}/kernel", transform)]
        if bias:
            rules.append(WeightRule(source + self.bias, f"params/{target}/bias", "copy"))
        return tuple(rules)

    def depthwise(self, source: str, target: str) -> tuple[WeightRule, ...]:
        """Rules for a depthwise convolution without bias."""
        path = f"params/{target}/depthwise_kernel"
        return (WeightRule(source + self.depthwise_kernel, path, self.depthwise_axes),)

    def batch_norm(self, source: str, target: str) -> tuple[WeightRule, ...]:
        """Rules for a batch norm."""
        leaves = ("params", "scale"), ("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var")
        return tuple(
            WeightRule(source + ending, f"{collection}/{target}/{leaf}", "copy")
            for ending, (collection, leaf) in zip(self.norm, leaves, strict=True)
        )

    def conv_norm(self, conv: str, norm: str, target: str, *, channels: str = "") -> tuple[WeightRule, ...]:
        """Rules for our ConvNorm: a convolution named `conv`, then the batch norm `norm`."""
        return self.conv(conv, f"{target}/conv", channels=channels) + self.batch_norm(norm, f"{target}/norm")

    def depthwise_norm(self, conv: str, norm: str, target: str) -> tuple[WeightRule, ...]:
        """Rules for our depthwise ConvNorm."""
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
      ValueError: when it does not exist: the file has another layout.
    """
    if name not in shapes:
        raise ValueError(f"there is no '{name}'")
    return shapes[name]


def count(shapes: ArrayShapes, pattern: str) -> int:
    """The number of distinct values of the first group of `pattern` over the names it fully matches."""
    return len({match[1] for name in shapes if (match := re.fullmatch(pattern, name))})
