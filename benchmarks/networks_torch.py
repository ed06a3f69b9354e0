"""PyTorch's side of benchmarks/networks.py: a published network, eager or compiled, channels last."""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.pairs import peak_bytes, reset_peak, turn_seconds

_declared = []  # keeps operators alive: they live as long as the object that declared them


class Network:
    """One network and the step being measured."""

    def __init__(
        self, factory: str, arguments: dict[str, Any], mean: Sequence[float], std: Sequence[float], **options: Any
    ) -> None:
        """Random weights on the device.

        Args:
          factory: 'module:name' of the function that makes it, called with `arguments`.
          mean: of RGB in [0, 1].
          std: of RGB in [0, 1].
          **options: 'device', 'dtype' ('bfloat16' by autocast), 'is_compiled'.
        """
        self._device = open_device(options["device"])
        torch.manual_seed(0)
        module = load_factory(factory)(**arguments)
        self._module = module.to(self._device, memory_format=torch.channels_last)
        self._called = torch.compile(self._module) if options["is_compiled"] else self._module
        self._mean, self._std = (
            torch.tensor(values, device=self._device)[None, :, None, None] * 255 for values in (mean, std)
        )
        self._autocast = (
            functools.partial(torch.autocast, self._device.type, torch.bfloat16)
            if options["dtype"] == "bfloat16"
            else contextlib.nullcontext
        )
        self._run: Callable[[], Any] = lambda: None

    def num_parameters(self) -> int:
        """The number of trainable values, including batch norm's."""
        return sum(parameter.numel() for parameter in self._module.parameters())

    def save_weights(self, path: str) -> None:
        """Writes the state dict as .npz."""
        np.savez(path, **{name: tensor.cpu().numpy() for name, tensor in self._module.state_dict().items()})

    def prepare(self, mode: str, shape: tuple[int, int, int], num_classes: int) -> float:
        """Selects 'forward' or 'train' on random images of shape [b, h, w]; returns the seconds of the first step."""
        rng = np.random.default_rng(0)
        images = torch.from_numpy(rng.integers(0, 256, (*shape, 3), np.uint8)).to(self._device).permute(0, 3, 1, 2)
        labels = torch.from_numpy(rng.integers(0, num_classes, shape, np.uint8)).to(self._device).long()
        self._run = self._train_step(images, labels) if mode == "train" else self._forward_step(images)
        start = time.perf_counter()
        self._run()
        seconds = time.perf_counter() - start
        self._run()  # by now cuDNN and the compiler have chosen their algorithms
        self._reset_memory()
        return seconds

    def turn(self) -> float:
        """Seconds of one step."""
        return turn_seconds(self._run)

    def logits(self) -> np.ndarray:
        """The logits of the forward step, [b, h, w, c]."""
        return self._run().float().permute(0, 2, 3, 1).cpu().numpy()

    def memory(self) -> dict[str, int]:
        """Peak bytes of the process while the step ran, or of the GPU if there is one."""
        if self._device.type == "cuda":
            return {"running": torch.cuda.max_memory_allocated()}
        return {"running": peak_bytes()}

    def device(self) -> str:
        """The device's name."""
        return torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu"

    def _reset_memory(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        reset_peak()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _scores(self, images: torch.Tensor) -> torch.Tensor:
        output = self._called((images.float() - self._mean) / self._std)
        return output["out"] if isinstance(output, dict) else output

    def _forward_step(self, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        self._module.eval()

        def step() -> torch.Tensor:
            with torch.inference_mode(), self._autocast():
                scores = self._scores(images)
            self._wait()
            return scores

        return step

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
        self._module.train()
        optimizer = torch.optim.SGD(self._module.parameters(), lr=0.007, momentum=0.9, weight_decay=4e-5)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                loss = functional.cross_entropy(self._scores(images), labels, ignore_index=255)
            loss.backward()
            optimizer.step()
            self._wait()

        return step


def open_device(name: str) -> torch.device:
    """The device; on a GPU cuDNN benchmarks its algorithms."""
    if name == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TensorFloat-32, as in cuDNN's and XLA's convolutions
    return torch.device(name)


def load_factory(path: str) -> Callable[..., torch.nn.Module]:
    """The function at 'module:name'; torchvision may lack its compiled operators, which no network here uses."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
