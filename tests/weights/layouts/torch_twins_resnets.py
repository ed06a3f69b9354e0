"""Twins, as in torch_twins.py, of the systems that have a ResNet of their own: kazuto and detectron2."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch_twins import Twin, column, resize


def _kazuto_conv(channels_in, channels, size=1, stride=1, rate=1):
    layer = nn.Module()
    layer.conv = nn.Conv2d(channels_in, channels, size, stride, size // 2 * rate, rate, bias=False)
    layer.bn = nn.BatchNorm2d(channels)
    layer.forward = lambda x: layer.bn(layer.conv(x))
    return layer


class KazutoUnit(nn.Module):
    """The first 1x1 has the stride."""

    def __init__(self, channels_in, channels, stride, rate, is_first):
        super().__init__()
        self.reduce = _kazuto_conv(channels_in, channels // 4, stride=stride)
        self.conv3x3 = _kazuto_conv(channels // 4, channels // 4, 3, rate=rate)
        self.increase = _kazuto_conv(channels // 4, channels)
        self.shortcut = _kazuto_conv(channels_in, channels, stride=stride) if is_first else nn.Identity()

    def forward(self, x):
        y = functional.relu(self.conv3x3(functional.relu(self.reduce(x))))
        return functional.relu(self.increase(y) + self.shortcut(x))


class Kazuto(Twin):
    """DeepLab v2 of three scales; reads blue, green, red."""

    def __init__(self, num_classes):
        super().__init__()
        self.base = nn.Module()
        self.base.layer1 = nn.Module()
        self.base.layer1.conv1 = _kazuto_conv(3, 64, 7, 2)
        channels = 64
        for layer_id, (channels_out, num_units, stride, rate) in enumerate(
            [(256, 3, 1, 1), (512, 4, 2, 1), (1024, 23, 1, 2), (2048, 3, 1, 4)], start=2
        ):
            units = nn.Sequential()
            for unit_id in range(1, num_units + 1):
                first = unit_id == 1
                unit = KazutoUnit(channels, channels_out, stride if first else 1, rate, first)
                units.add_module(f"block{unit_id}", unit)
                channels = channels_out
            self.base.add_module(f"layer{layer_id}", units)
        self.base.aspp = nn.Module()
        for branch_id, rate in enumerate((6, 12, 18, 24)):
            conv = nn.Conv2d(2048, num_classes, 3, padding=rate, dilation=rate)
            self.base.aspp.add_module(f"c{branch_id}", conv)

    def forward(self, images):
        x = images.flip(1) - column((104.008, 116.669, 122.675))
        pyramid = [self.scores(x)]
        for scale in (0.75, 0.5):
            size = [int(axis * scale) for axis in x.shape[2:]]
            pyramid.append(resize(self.scores(resize(x, size)), pyramid[0].shape[2:]))
        return resize(torch.stack(pyramid).amax(0), images.shape[2:])

    def scores(self, x):
        base = self.base
        x = functional.max_pool2d(functional.relu(base.layer1.conv1(x)), 3, 2, 1, ceil_mode=True)
        for layer in (base.layer2, base.layer3, base.layer4, base.layer5):
            x = layer(x)
        return sum(conv(x) for conv in base.aspp.children())


class NormedConv(nn.Conv2d):
    """detectron2.layers.Conv2d with a norm."""

    def __init__(self, channels_in, channels, size=1, stride=1, rate=1):
        super().__init__(channels_in, channels, size, stride, size // 2 * rate, rate, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(super().forward(x))


class Detectron2Unit(nn.Module):
    def __init__(self, channels_in, channels, stride, rate, is_first):
        super().__init__()
        self.shortcut = NormedConv(channels_in, channels, 1, stride) if is_first else nn.Identity()
        self.conv1 = NormedConv(channels_in, channels // 4)
        self.conv2 = NormedConv(channels // 4, channels // 4, 3, stride, rate)
        self.conv3 = NormedConv(channels // 4, channels)

    def forward(self, x):
        y = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        return functional.relu(self.conv3(y) + self.shortcut(x))


class Detectron2(Twin):
    """DeepLab v3+ on R-52 at output stride 16.

    Attributes:
      pooling_cells: (height, width) of the windows that image pooling averages over.
    """

    def __init__(self, num_classes, pooling_cells):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.stem = nn.Module()
        for conv_id, (channels_in, channels, stride) in enumerate([(3, 64, 2), (64, 64, 1), (64, 128, 1)], start=1):
            self.backbone.stem.add_module(f"conv{conv_id}", NormedConv(channels_in, channels, 3, stride))
        for stage_id, (channels_out, stride, rates) in enumerate(
            [(256, 1, (1,) * 3), (512, 2, (1,) * 4), (1024, 2, (1,) * 6), (2048, 1, (2, 4, 8))], start=2
        ):
            units = nn.Sequential()
            for unit_id, rate in enumerate(rates):
                first = unit_id == 0
                units.append(Detectron2Unit(channels, channels_out, stride if first else 1, rate, first))
                channels = channels_out
            self.backbone.add_module(f"res{stage_id}", units)
        decoder = nn.ModuleDict({"res2": nn.Module(), "res5": nn.Module()})
        decoder["res2"].project_conv = NormedConv(256, 48)
        decoder["res2"].fuse_conv = nn.Sequential(NormedConv(304, 256, 3), NormedConv(256, 256, 3))
        decoder["res5"].project_conv = pyramid = nn.Module()
        pooling = nn.Sequential(nn.AvgPool2d(pooling_cells, 1), nn.Conv2d(2048, 256, 1))
        branches = [NormedConv(2048, 256, 3, rate=rate) for rate in (6, 12, 18)]
        pyramid.convs = nn.ModuleList([NormedConv(2048, 256), *branches, pooling])
        pyramid.project = NormedConv(1280, 256)
        self.sem_seg_head = nn.Module()
        self.sem_seg_head.decoder = decoder
        self.sem_seg_head.predictor = nn.Conv2d(256, num_classes, 1)

    def logits(self, x):
        backbone, decoder = self.backbone, self.sem_seg_head.decoder
        for conv in backbone.stem.children():
            x = functional.relu(conv(x))
        low_level = backbone.res2(functional.max_pool2d(x, 3, 2, 1))
        x = backbone.res5(backbone.res4(backbone.res3(low_level)))
        pyramid = decoder["res5"].project_conv
        *branches, pooled = (functional.relu(conv(x)) for conv in pyramid.convs)
        x = functional.relu(pyramid.project(torch.cat([*branches, resize(pooled, x.shape[2:])], 1)))
        low_level = functional.relu(decoder["res2"].project_conv(low_level))
        x = torch.cat([low_level, resize(x, low_level.shape[2:])], 1)
        for conv in decoder["res2"].fuse_conv:
            x = functional.relu(conv(x))
        return self.sem_seg_head.predictor(x)
