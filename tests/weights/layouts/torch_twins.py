"""Twins of networks whose systems cannot be installed here: PyTorch modules written after their sources.

They name their arrays as the systems do, since `state_dict` names them by attribute, and compute as they do. Images
are RGB bytes, [b, 3, h, w]; each twin normalises them itself and gives logits at their size.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch_peers import import_peer

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def column(values):
    return torch.tensor(values)[None, :, None, None]


def resize(x, size, align_corners=False):
    return functional.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def _conv_norm_relu(channels_in, channels, size=1, rate=1):
    conv = nn.Conv2d(channels_in, channels, size, padding=size // 2 * rate, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


class Twin(nn.Module):
    """Normalises, calls `logits`, resizes."""

    align_corners = False

    def forward(self, images):
        x = (images - column(MEAN)) / column(STD)
        return resize(self.logits(x), images.shape[2:], self.align_corners)


def _resnet(depth, output_stride):
    """torchvision's, which VainF copied; the first unit of a stage with holes has the old rate."""
    models = import_peer("torchvision.models")
    holes = [False, output_stride == 8, True]
    network = getattr(models, f"resnet{depth}")(weights=None, replace_stride_with_dilation=holes)
    del network.fc
    return network


def _stages(network, x, stem):
    """Outputs of the four stages."""
    x = functional.max_pool2d(stem(x), 3, 2, 1)
    outputs = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        outputs.append(x)
    return outputs


def _plain_stem(network):
    return lambda x: functional.relu(network.bn1(network.conv1(x)))


class VainfASPP(nn.Module):
    def __init__(self, channels, rates):
        super().__init__()
        pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv_norm_relu(channels, 256))
        branches = [_conv_norm_relu(channels, 256), *(_conv_norm_relu(channels, 256, 3, rate) for rate in rates)]
        self.convs = nn.ModuleList([*branches, pooling])
        self.project = _conv_norm_relu(1280, 256)

    def forward(self, x):
        *branches, pooled = (conv(x) for conv in self.convs)
        return self.project(torch.cat([*branches, resize(pooled, x.shape[2:])], 1))


class VainfV3PlusHead(nn.Module):
    def __init__(self, channels, low_level, num_classes):
        super().__init__()
        self.project = _conv_norm_relu(low_level, 48)
        self.aspp = VainfASPP(channels, (6, 12, 18))
        self.classifier = nn.Sequential(*_conv_norm_relu(304, 256, 3), nn.Conv2d(256, num_classes, 1))

    def forward(self, low_level, x):
        low_level = self.project(low_level)
        x = resize(self.aspp(x), low_level.shape[2:])
        return self.classifier(torch.cat([low_level, x], 1))


class VainfResNet(Twin):
    def __init__(self, num_classes):
        super().__init__()
        self.backbone = _resnet(50, 16)
        self.classifier = VainfV3PlusHead(2048, 256, num_classes)

    def logits(self, x):
        low_level, *_, deepest = _stages(self.backbone, x, _plain_stem(self.backbone))
        return self.classifier(low_level, deepest)


class VainfBlock(nn.Module):
    """Its padding lies before the expansion."""

    def __init__(self, channels_in, channels, expansion, stride, rate):
        super().__init__()
        hidden = expansion * channels_in

        def conv_norm_relu6(channels_in, size=1, groups=1, **options):
            conv = nn.Conv2d(channels_in, hidden, size, groups=groups, bias=False, **options)
            return nn.Sequential(conv, nn.BatchNorm2d(hidden), nn.ReLU6())

        layers = [conv_norm_relu6(channels_in)] if expansion > 1 else []
        layers += [conv_norm_relu6(hidden, 3, hidden, stride=stride, dilation=rate)]
        self.conv = nn.Sequential(*layers, nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.rate, self.is_residual = rate, stride == 1 and channels_in == channels

    def forward(self, x):
        y = self.conv(functional.pad(x, 4 * (self.rate,)))
        return x + y if self.is_residual else y


class VainfMobileNetV2(Twin):
    """Output stride 16: the stride of the sixth stage is left out."""

    def __init__(self, num_classes):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        features, channels = [stem], 32
        for expansion, channels_out, repeats, stride, rates in (
            *((1, 16, 1, 1, (1, 1)), (6, 24, 2, 2, (1, 1)), (6, 32, 3, 2, (1, 1)), (6, 64, 4, 2, (1, 1))),
            *((6, 96, 3, 1, (1, 1)), (6, 160, 3, 1, (1, 2)), (6, 320, 1, 1, (2, 2))),
        ):
            for unit_id in range(repeats):
                first = unit_id == 0
                features.append(
                    VainfBlock(channels, channels_out, expansion, stride if first else 1, rates[0 if first else 1])
                )
                channels = channels_out
        features = nn.Sequential(*features)
        self.backbone = nn.Module()
        self.backbone.low_level_features, self.backbone.high_level_features = features[:4], features[4:]
        self.classifier = VainfV3PlusHead(320, 24, num_classes)

    def logits(self, x):
        low_level = self.backbone.low_level_features(x)
        return self.classifier(low_level, self.backbone.high_level_features(low_level))


def _set_rates(stage, rates):
    for unit, rate in zip(stage, rates, strict=True):
        unit.conv2.dilation = unit.conv2.padding = (rate, rate)


class JfzhangBranch(nn.Module):
    def __init__(self, size, rate):
        super().__init__()
        self.atrous_conv, self.bn, _ = _conv_norm_relu(2048, 256, size, rate)

    def forward(self, x):
        return functional.relu(self.bn(self.atrous_conv(x)))


class Jfzhang(Twin):
    align_corners = True

    def __init__(self, num_classes):
        super().__init__()
        self.backbone = _resnet(101, 16)
        _set_rates(self.backbone.layer4, (2, 4, 8))
        self.aspp, self.decoder = nn.Module(), nn.Module()
        for branch_id, (size, rate) in enumerate([(1, 1), (3, 6), (3, 12), (3, 18)], start=1):
            self.aspp.add_module(f"aspp{branch_id}", JfzhangBranch(size, rate))
        self.aspp.global_avg_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv_norm_relu(2048, 256))
        self.aspp.conv1, self.aspp.bn1, _ = _conv_norm_relu(1280, 256)
        self.decoder.conv1, self.decoder.bn1, _ = _conv_norm_relu(256, 48)
        first, second = _conv_norm_relu(304, 256, 3), _conv_norm_relu(256, 256, 3)
        classifier = nn.Conv2d(256, num_classes, 1)
        self.decoder.last_conv = nn.Sequential(*first, nn.Dropout(0.0), *second, nn.Dropout(0.0), classifier)

    def logits(self, x):
        low_level, *_, x = _stages(self.backbone, x, _plain_stem(self.backbone))
        aspp, decoder = self.aspp, self.decoder
        branches = [branch(x) for branch in (aspp.aspp1, aspp.aspp2, aspp.aspp3, aspp.aspp4)]
        pooled = resize(aspp.global_avg_pool(x), x.shape[2:], True)
        x = functional.relu(aspp.bn1(aspp.conv1(torch.cat([*branches, pooled], 1))))
        low_level = functional.relu(decoder.bn1(decoder.conv1(low_level)))
        return decoder.last_conv(torch.cat([resize(x, low_level.shape[2:], True), low_level], 1))


class ConvModule(nn.Module):
    """mmcv's."""

    def __init__(self, channels_in, channels, size=1, rate=1, groups=1, stride=1):
        super().__init__()
        padding = size // 2 * rate
        self.conv = nn.Conv2d(channels_in, channels, size, stride, padding, rate, groups, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return functional.relu(self.bn(self.conv(x)))


class SeparableConvModule(nn.Module):
    def __init__(self, channels_in, channels, rate=1):
        super().__init__()
        self.depthwise_conv = ConvModule(channels_in, channels_in, 3, rate, groups=channels_in)
        self.pointwise_conv = ConvModule(channels_in, channels)

    def forward(self, x):
        return self.pointwise_conv(self.depthwise_conv(x))


def _resnet_v1c():
    """mmsegmentation's ResNet-50-V1c at output stride 8."""
    backbone, channels, layers = _resnet(50, 8), 3, []
    del backbone.conv1, backbone.bn1
    for channels_out, stride in ((32, 2), (32, 1), (64, 1)):
        layers += [
            nn.Conv2d(channels, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        ]
        channels = channels_out
    backbone.stem = nn.Sequential(*layers)
    return backbone


class MmsegFcn(Twin):
    """FCN of two convolutions and the one that reads the features again, with mmsegmentation's published names."""

    def __init__(self, num_classes):
        super().__init__()
        self.backbone, self.decode_head = _resnet_v1c(), nn.Module()
        self.decode_head.convs = nn.Sequential(ConvModule(2048, 512, 3), ConvModule(512, 512, 3))
        self.decode_head.conv_cat = ConvModule(2048 + 512, 512, 3)
        self.decode_head.conv_seg = nn.Conv2d(512, num_classes, 1)

    def logits(self, x):
        x, head = _stages(self.backbone, x, self.backbone.stem)[-1], self.decode_head
        return head.conv_seg(head.conv_cat(torch.cat([x, head.convs(x)], 1)))


class Mmseg(Twin):
    """DeepLab v3+ on ResNet-50-V1c at output stride 8; gives the auxiliary head's logits in training."""

    def __init__(self, num_classes):
        super().__init__()
        self.backbone = _resnet_v1c()
        self.decode_head = head = nn.Module()
        head.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(2048, 512))
        branches = [SeparableConvModule(2048, 512, rate) for rate in (12, 24, 36)]
        head.aspp_modules = nn.ModuleList([ConvModule(2048, 512), *branches])
        head.bottleneck = ConvModule(5 * 512, 512, 3)
        head.c1_bottleneck = ConvModule(256, 48)
        head.sep_bottleneck = nn.Sequential(SeparableConvModule(560, 512), SeparableConvModule(512, 512))
        head.conv_seg = nn.Conv2d(512, num_classes, 1)
        self.auxiliary_head = nn.Module()
        self.auxiliary_head.convs = nn.Sequential(ConvModule(1024, 256, 3))
        self.auxiliary_head.conv_seg = nn.Conv2d(256, num_classes, 1)

    def logits(self, x):
        low_level, _, _, x = _stages(self.backbone, x, self.backbone.stem)
        head = self.decode_head
        pooled = resize(head.image_pool(x), x.shape[2:])
        x = head.bottleneck(torch.cat([pooled, *(branch(x) for branch in head.aspp_modules)], 1))
        low_level = head.c1_bottleneck(low_level)
        x = head.sep_bottleneck(torch.cat([resize(x, low_level.shape[2:]), low_level], 1))
        return head.conv_seg(x)
