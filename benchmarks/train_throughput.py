"""Training throughput of a config beside a PyTorch model of the same architecture, in one run.

    python benchmarks/train_throughput.py [--num_rounds=5] [--output=FILE.json]

Both train v3+ on MobileNetV2 as in configs/camvid_cpu.py (same layers, same number of parameters, batch norm in
training mode, cross-entropy on full-size logits, momentum SGD) on the same random batch held in memory, on the CPU
with as many threads as there are cores. Steps of the two are interleaved; the ratio is of the medians. Needs torch,
which the project itself does not: pip install torch.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from configs import camvid_cpu
from deeplab_jax.apps import assemble
from deeplab_jax.models.build import build_model
from deeplab_jax.ops.mesh import make_mesh, shard_batch
from deeplab_jax.train.optimizer import make_optimizer
from deeplab_jax.train.state import create_train_state, create_variables
from deeplab_jax.train.step import make_train_step
from deeplab_jax.types import Batch, DatasetInfo

NUM_CLASSES, IGNORE_LABEL = 11, 255
INFO = DatasetInfo("random", NUM_CLASSES, IGNORE_LABEL, ("any",) * NUM_CLASSES, ((0, 0, 0),) * NUM_CLASSES, {})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--num_rounds", type=int, default=5)
    arguments.add_argument("--output", type=pathlib.Path)
    options = arguments.parse_args()

    config = camvid_cpu.get_config()
    rng = np.random.default_rng(0)
    size = (config.data.batch_size, *config.data.crop_size)
    batch = Batch(
        rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        rng.integers(0, NUM_CLASSES, size, dtype=np.uint8),
        np.ones(size[0], bool),
    )
    num_parameters, ours = _ours(config, batch)
    model = V3PlusMobileNetV2(config.model.head.args["aspp_channels"], config.model.head.args["decoder_channels"])
    if num_parameters != sum(p.numel() for p in model.parameters()):
        raise SystemExit("the two networks differ: the comparison would mean nothing")
    steps = {"deeplab_jax": ours, "torch": _torch_step(model, batch)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # compiles, allocates
    for _ in range(options.num_rounds):
        for name, step in steps.items():
            times[name].append(_seconds(step))
    rates = {name: size[0] / statistics.median(values) for name, values in times.items()}
    result = {
        "images_per_second": rates,
        "ratio_to_torch": rates["deeplab_jax"] / rates["torch"],
        "batch": size,
        "parameters": num_parameters,
        "versions": {"jax": jax.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "threads": torch.get_num_threads(),
    }
    for name, rate in rates.items():
        print(f"{name:12s} {rate:6.2f} images/s")
    print(f"ratio        {result['ratio_to_torch']:6.2f}  (deeplab_jax over torch; above 1 is faster)")
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def _seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _ours(config, batch: Batch) -> tuple[int, Callable[[], None]]:
    """(number of parameters, one step of the project's own train step, waited for)."""
    mesh = make_mesh(1)
    model = build_model(config.model, INFO)
    variables = create_variables(assemble.make_init(config, model), seed=0, mesh=mesh)
    tx, rate = make_optimizer(config.optimizer, config.train.num_steps, variables["params"])
    train_step = make_train_step(
        model.apply,
        assemble.make_loss(config.loss, INFO),
        tx,
        rate,
        mesh=mesh,
        ignore_label=IGNORE_LABEL,
        seed=0,
    )
    state = create_train_state(variables, tx, ema=False, mesh=mesh)
    batch = shard_batch(batch, mesh)

    def step() -> None:
        nonlocal state
        state, metrics = train_step(state, batch)
        jax.block_until_ready((state, metrics))

    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), step


def _torch_step(model: nn.Module, batch: Batch) -> Callable[[], None]:
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5)
    images = torch.from_numpy(batch.image).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(batch.label).long()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(images.float() / 127.5 - 1), labels, ignore_index=IGNORE_LABEL)
        loss.backward()
        optimizer.step()

    return step


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, rate: int = 1, *, groups: int = 1, relu=None):
    pad = rate * (kernel - 1) // 2
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, pad, rate, groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([relu(inplace=True)] if relu else []))


def _separable(inputs: int, outputs: int, rate: int = 1) -> nn.Sequential:
    depthwise = _conv(inputs, inputs, 3, rate=rate, groups=inputs, relu=nn.ReLU)
    return nn.Sequential(depthwise, _conv(inputs, outputs, relu=nn.ReLU))


class _Block(nn.Module):
    """Inverted residual."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, rate: int) -> None:
        super().__init__()
        width = inputs * expansion
        expand = [_conv(inputs, width, relu=nn.ReLU6)] if expansion > 1 else []
        depthwise = _conv(width, width, 3, stride, rate, groups=width, relu=nn.ReLU6)
        self.layers = nn.Sequential(*expand, depthwise, _conv(width, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class V3PlusMobileNetV2(nn.Module):
    """MobileNetV2 at output stride 16 with separable ASPP and decoder, written plainly for PyTorch."""

    def __init__(self, aspp_channels: int, decoder_channels: int) -> None:
        super().__init__()
        self.stem = _conv(3, 32, 3, 2, relu=nn.ReLU6)
        blocks, inputs, current, rate = [], 32, 2, 1
        for expansion, channels, repeats, nominal in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for index in range(repeats):
                stride = nominal if index == 0 else 1
                if current == 16:
                    blocks.append(_Block(inputs, channels, expansion, 1, rate))
                    rate *= stride
                else:
                    current *= stride
                    blocks.append(_Block(inputs, channels, expansion, stride, 1))
                inputs = channels
        self.low, self.high = nn.Sequential(*blocks[:3]), nn.Sequential(*blocks[3:])
        self.pool = _conv(inputs, aspp_channels, relu=nn.ReLU)
        self.branches = nn.ModuleList(
            [_conv(inputs, aspp_channels, relu=nn.ReLU)]
            + [_separable(inputs, aspp_channels, rate) for rate in (6, 12, 18)]
        )
        self.project = nn.Sequential(_conv(5 * aspp_channels, aspp_channels, relu=nn.ReLU), nn.Dropout(0.1))
        self.low_project = _conv(24, 48, relu=nn.ReLU)
        self.decoder = nn.Sequential(
            _separable(aspp_channels + 48, decoder_channels),
            _separable(decoder_channels, decoder_channels),
            nn.Conv2d(decoder_channels, NUM_CLASSES, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        low = self.low(self.stem(images))
        x = self.high(low)
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        x = self.project(torch.cat([pooled, *(branch(x) for branch in self.branches)], 1))
        x = functional.interpolate(x, low.shape[2:], mode="bilinear", align_corners=True)
        logits = self.decoder(torch.cat([x, self.low_project(low)], 1))
        return functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=True)


if __name__ == "__main__":
    main()
