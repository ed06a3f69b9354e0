"""The shape of a network's convolution; needs neither JAX nor PyTorch."""

from __future__ import annotations

from typing import NamedTuple

DIRECTIONS = {"forward": "", "input": "_input", "kernel": "_kernel"}  # -> suffix of the operation's name


class Shape(NamedTuple):
    """A convolution of a network; `features` is 0 for a depthwise one."""

    height: int
    width: int
    channels: int
    features: int
    taps: int
    stride: int
    rate: int

    @property
    def work(self) -> int:
        """Approximate number of multiplications for one image."""
        return self.height * self.width * self.channels * (self.features or 1) * self.taps**2 // self.stride**2

    @property
    def kind(self) -> str:
        return "dense" if self.features else "depthwise"

    @property
    def name(self) -> str:
        channels = f"{self.channels} -> {self.features}" if self.features else f"{self.channels} depthwise"
        words = [f"{self.height}x{self.width}", channels, f"{self.taps}x{self.taps}"]
        words += [f"stride {self.stride}"] if self.stride > 1 else []
        words += [f"rate {self.rate}"] if self.rate > 1 else []
        return ", ".join(words)
