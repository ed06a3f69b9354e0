"""The network of configs/camvid_cpu.py in plain PyTorch: v3+ on MobileNetV2, all of it separable."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


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
    """MobileNetV2 at output stride 16 with separable ASPP and decoder."""

    def __init__(self, num_classes: int, aspp_channels: int, decoder_channels: int) -> None:
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
            nn.Conv2d(decoder_channels, num_classes, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        low = self.low(self.stem(images))
        x = self.high(low)
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        x = self.project(torch.cat([pooled, *(branch(x) for branch in self.branches)], 1))
        x = functional.interpolate(x, low.shape[2:], mode="bilinear", align_corners=True)
        logits = self.decoder(torch.cat([x, self.low_project(low)], 1))
        return functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=True)
