"""PyTorch's side of benchmarks/convolutions.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks.pairs import turn_seconds
from benchmarks.shapes import Shape


class Convolution:
    """One shape at a time, channels last."""

    def __init__(self, device: str, dtype: str, batch: int) -> None:
        self._device, self._dtype, self._batch = device, getattr(torch, dtype), batch
        self._run: Callable[[], Any] = lambda: None
        torch.backends.cudnn.benchmark = True

    def prepare(self, shape: Shape, direction: str) -> None:
        """Selects the shape's convolution, or one of its gradients, for the next turns."""
        groups = 1 if shape.kind == "dense" else shape.channels
        features, pad = shape.features or shape.channels, shape.rate * (shape.taps - 1) // 2
        x = self._draw(self._batch, shape.channels, shape.height, shape.width)
        kernel = self._draw(features, shape.channels // groups, shape.taps, shape.taps)
        stride, padding, rate = ([number] * 2 for number in (shape.stride, pad, shape.rate))

        def forward() -> torch.Tensor:
            return functional.conv2d(x, kernel, None, stride, padding, rate, groups)

        dy = torch.randn_like(forward())
        wanted = (direction == "input", direction == "kernel", False)

        def backward() -> Any:
            return torch.ops.aten.convolution_backward(
                dy, x, kernel, None, stride, padding, rate, False, [0, 0], groups, wanted
            )

        self._run = forward if direction == "forward" else backward

    def turn(self) -> float:
        """Seconds of one run."""

        def run() -> None:
            with torch.no_grad():
                self._run()
            if self._device == "cuda":
                torch.cuda.synchronize()

        return turn_seconds(run, at_least=0.1)

    def _draw(self, *sizes: int) -> torch.Tensor:
        values = torch.randn(sizes, device=self._device).to(self._dtype)
        return values.contiguous(memory_format=torch.channels_last)
