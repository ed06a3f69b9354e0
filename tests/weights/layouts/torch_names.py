"""Names and shapes of the PyTorch systems' (and GluonCV's) arrays, written out from the structure of their sources.

Nothing here comes from the layouts: what they read is held against it. Channels are those of the sources' lists.
"""

from __future__ import annotations

NUM_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def _batch_norm(name, channels, *, counter=True):
    leaves = {f"{name}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return leaves | ({f"{name}.num_batches_tracked": ()} if counter else {})


def _conv(name, norm, size, channels_in, channels):
    """A convolution without bias and the batch norm behind it."""
    return {f"{name}.weight": (channels, channels_in, size, size)} | _batch_norm(norm, channels)


def _logits(name, channels, num_classes, size=1):
    return {f"{name}.weight": (num_classes, channels, size, size), f"{name}.bias": (num_classes,)}


def resnet(prefix, depth, *, stem="plain"):
    """torchvision's; with mmsegmentation's ResNetV1c's stem."""
    if stem == "v1c":
        shapes = {}
        for place, (channels_in, channels) in zip((0, 3, 6), [(3, 32), (32, 32), (32, 64)], strict=True):
            shapes |= _conv(f"{prefix}stem.{place}", f"{prefix}stem.{place + 1}", 3, channels_in, channels)
    else:
        shapes = _conv(f"{prefix}conv1", f"{prefix}bn1", 7, 3, 64)
    channels = 64
    for layer_id, num_units in enumerate(NUM_UNITS[depth], start=1):
        planes = 64 * 2 ** (layer_id - 1)
        for unit_id in range(num_units):
            unit = f"{prefix}layer{layer_id}.{unit_id}"
            for conv_id, (size, channels_in, channels_out) in enumerate(
                [(1, channels, planes), (3, planes, planes), (1, planes, 4 * planes)], start=1
            ):
                shapes |= _conv(f"{unit}.conv{conv_id}", f"{unit}.bn{conv_id}", size, channels_in, channels_out)
            if unit_id == 0:
                shapes |= _conv(f"{unit}.downsample.0", f"{unit}.downsample.1", 1, channels, 4 * planes)
            channels = 4 * planes
    return shapes


def classifier(name="fc"):
    return {f"{name}.weight": (1000, 2048), f"{name}.bias": (1000,)}


def _aspp(prefix, channels):
    """torchvision's and VainF's."""
    shapes = _conv(f"{prefix}convs.0.0", f"{prefix}convs.0.1", 1, channels, 256)
    for branch_id in (1, 2, 3):
        shapes |= _conv(f"{prefix}convs.{branch_id}.0", f"{prefix}convs.{branch_id}.1", 3, channels, 256)
    shapes |= _conv(f"{prefix}convs.4.1", f"{prefix}convs.4.2", 1, channels, 256)
    return shapes | _conv(f"{prefix}project.0", f"{prefix}project.1", 1, 5 * 256, 256)


def torchvision_deeplabv3(depth, num_classes):
    shapes = resnet("backbone.", depth) | _aspp("classifier.0.", 2048)
    shapes |= _conv("classifier.1", "classifier.2", 3, 256, 256) | _logits("classifier.4", 256, num_classes)
    auxiliary = _conv("aux_classifier.0", "aux_classifier.1", 3, 1024, 256)
    return shapes | auxiliary | _logits("aux_classifier.4", 256, num_classes)


def vainf_v3_head(channels, num_classes):
    start = "classifier.classifier."
    shapes = _aspp(f"{start}0.", channels) | _conv(f"{start}1", f"{start}2", 3, 256, 256)
    return shapes | _logits(f"{start}4", 256, num_classes)


def vainf_v3plus_head(channels, low_level, num_classes):
    start = "classifier."
    shapes = _conv(f"{start}project.0", f"{start}project.1", 1, low_level, 48) | _aspp(f"{start}aspp.", channels)
    shapes |= _conv(f"{start}classifier.0", f"{start}classifier.1", 3, 48 + 256, 256)
    return shapes | _logits(f"{start}classifier.3", 256, num_classes)


MOBILENET_V2_SETTING = (
    *((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4)),
    *((6, 96, 3), (6, 160, 3), (6, 320, 1)),
)  # expansion, channels, repeats


def vainf_mobilenet_v2():
    """network/backbone/mobilenetv2.py, cut in two by modeling.py behind its fourth part."""
    shapes = _conv("backbone.low_level_features.0.0", "backbone.low_level_features.0.1", 3, 3, 32)
    channels, layer_id = 32, 0
    for expansion, channels_out, repeats in MOBILENET_V2_SETTING:
        for _ in range(repeats):
            layer_id += 1
            block = f"backbone.{'low' if layer_id < 4 else 'high'}_level_features.{layer_id}.conv"
            hidden, part = expansion * channels, 0
            if expansion != 1:
                shapes |= _conv(f"{block}.0.0", f"{block}.0.1", 1, channels, hidden)
                part = 1
            shapes |= {f"{block}.{part}.0.weight": (hidden, 1, 3, 3)} | _batch_norm(f"{block}.{part}.1", hidden)
            shapes |= _conv(f"{block}.{part + 1}", f"{block}.{part + 2}", 1, hidden, channels_out)
            channels = channels_out
    return shapes


def _mmcv(name, size, channels_in, channels):
    """ConvModule."""
    return _conv(f"{name}.conv", f"{name}.bn", size, channels_in, channels)


def _mmcv_separable(name, channels_in, channels):
    """DepthwiseSeparableConvModule."""
    depthwise = f"{name}.depthwise_conv"
    shapes = {f"{depthwise}.conv.weight": (channels_in, 1, 3, 3)} | _batch_norm(f"{depthwise}.bn", channels_in)
    return shapes | _mmcv(f"{name}.pointwise_conv", 1, channels_in, channels)


def mmseg(depth, num_classes, *, plus, stem="v1c", auxiliary=True):
    """ASPPHead, or DepthwiseSeparableASPPHead, and FCNHead."""
    shapes, start = resnet("backbone.", depth, stem=stem), "decode_head."
    shapes |= _mmcv(f"{start}image_pool.1", 1, 2048, 512) | _mmcv(f"{start}aspp_modules.0", 1, 2048, 512)
    for branch_id in (1, 2, 3):
        name = f"{start}aspp_modules.{branch_id}"
        shapes |= _mmcv_separable(name, 2048, 512) if plus else _mmcv(name, 3, 2048, 512)
    shapes |= _mmcv(f"{start}bottleneck", 3, 5 * 512, 512)
    if plus:
        shapes |= _mmcv(f"{start}c1_bottleneck", 1, 256, 48)
        for conv_id, channels_in in enumerate((512 + 48, 512)):
            shapes |= _mmcv_separable(f"{start}sep_bottleneck.{conv_id}", channels_in, 512)
    shapes |= _logits(f"{start}conv_seg", 512, num_classes)
    if auxiliary:
        shapes |= _mmcv("auxiliary_head.convs.0", 3, 1024, 256)
        shapes |= _logits("auxiliary_head.conv_seg", 256, num_classes)
    return shapes


def mmseg_fcn(depth, num_classes):
    """FCNHead of two convolutions and the one that reads the features again; another is auxiliary."""
    shapes, start = resnet("backbone.", depth, stem="v1c"), "decode_head."
    shapes |= _mmcv(f"{start}convs.0", 3, 2048, 512) | _mmcv(f"{start}convs.1", 3, 512, 512)
    shapes |= _mmcv(f"{start}conv_cat", 3, 2048 + 512, 512) | _logits(f"{start}conv_seg", 512, num_classes)
    auxiliary = _mmcv("auxiliary_head.convs.0", 3, 1024, 256)
    return shapes | auxiliary | _logits("auxiliary_head.conv_seg", 256, num_classes)


def jfzhang(num_classes):
    """modeling/{aspp,decoder}.py."""
    shapes = resnet("backbone.", 101)
    for branch_id, size in ((1, 1), (2, 3), (3, 3), (4, 3)):
        shapes |= _conv(f"aspp.aspp{branch_id}.atrous_conv", f"aspp.aspp{branch_id}.bn", size, 2048, 256)
    shapes |= _conv("aspp.global_avg_pool.1", "aspp.global_avg_pool.2", 1, 2048, 256)
    shapes |= _conv("aspp.conv1", "aspp.bn1", 1, 1280, 256) | _conv("decoder.conv1", "decoder.bn1", 1, 256, 48)
    shapes |= _conv("decoder.last_conv.0", "decoder.last_conv.1", 3, 304, 256)
    shapes |= _conv("decoder.last_conv.4", "decoder.last_conv.5", 3, 256, 256)
    return shapes | _logits("decoder.last_conv.8", 256, num_classes)


def _kazuto_conv(name, size, channels_in, channels):
    """_ConvBnReLU."""
    return _conv(f"{name}.conv", f"{name}.bn", size, channels_in, channels)


def kazuto_resnet101(prefix):
    shapes, channels = _kazuto_conv(f"{prefix}layer1.conv1", 7, 3, 64), 64
    for layer_id, (num_units, channels_out) in enumerate(
        zip(NUM_UNITS[101], (256, 512, 1024, 2048), strict=True), start=2
    ):
        for unit_id in range(1, num_units + 1):
            unit, middle = f"{prefix}layer{layer_id}.block{unit_id}", channels_out // 4
            shapes |= _kazuto_conv(f"{unit}.reduce", 1, channels, middle)
            shapes |= _kazuto_conv(f"{unit}.conv3x3", 3, middle, middle)
            shapes |= _kazuto_conv(f"{unit}.increase", 1, middle, channels_out)
            if unit_id == 1:
                shapes |= _kazuto_conv(f"{unit}.shortcut", 1, channels, channels_out)
            channels = channels_out
    return shapes


def kazuto_v2(prefix, num_classes):
    shapes = kazuto_resnet101(prefix)
    for branch_id in range(4):
        shapes |= _logits(f"{prefix}aspp.c{branch_id}", 2048, num_classes, size=3)
    return shapes


def _detectron2_conv(name, size, channels_in, channels):
    """detectron2.layers.Conv2d with its norm; model zoo files have no counters."""
    norm = _batch_norm(f"{name}.norm", channels, counter=False)
    return {f"{name}.weight": (channels, channels_in, size, size)} | norm


def detectron2_resnet(prefix, depth):
    """DeepLabStem and BottleneckBlocks."""
    shapes = {}
    for conv_id, (channels_in, channels) in enumerate([(3, 64), (64, 64), (64, 128)], start=1):
        shapes |= _detectron2_conv(f"{prefix}stem.conv{conv_id}", 3, channels_in, channels)
    for stage_id, (num_units, channels_out) in enumerate(
        zip(NUM_UNITS[depth], (256, 512, 1024, 2048), strict=True), start=2
    ):
        for unit_id in range(num_units):
            unit, middle = f"{prefix}res{stage_id}.{unit_id}", channels_out // 4
            if unit_id == 0:
                shapes |= _detectron2_conv(f"{unit}.shortcut", 1, channels, channels_out)
            shapes |= _detectron2_conv(f"{unit}.conv1", 1, channels, middle)
            shapes |= _detectron2_conv(f"{unit}.conv2", 3, middle, middle)
            shapes |= _detectron2_conv(f"{unit}.conv3", 1, middle, channels_out)
            channels = channels_out
    return shapes


def _detectron2_aspp(prefix):
    shapes = _detectron2_conv(f"{prefix}convs.0", 1, 2048, 256)
    for branch_id in (1, 2, 3):
        shapes |= _detectron2_conv(f"{prefix}convs.{branch_id}", 3, 2048, 256)
    shapes |= {f"{prefix}convs.4.1.weight": (256, 2048, 1, 1), f"{prefix}convs.4.1.bias": (256,)}
    return shapes | _detectron2_conv(f"{prefix}project", 1, 1280, 256)


def detectron2(depth, num_classes, *, plus):
    shapes = {"pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1)} | detectron2_resnet("backbone.", depth)
    if plus:
        decoder = "sem_seg_head.decoder."
        shapes |= _detectron2_aspp(f"{decoder}res5.project_conv.")
        shapes |= _detectron2_conv(f"{decoder}res2.project_conv", 1, 256, 48)
        shapes |= _detectron2_conv(f"{decoder}res2.fuse_conv.0", 3, 48 + 256, 256)
        shapes |= _detectron2_conv(f"{decoder}res2.fuse_conv.1", 3, 256, 256)
    else:
        shapes |= _detectron2_aspp("sem_seg_head.aspp.")
    return shapes | _logits("sem_seg_head.predictor", 256, num_classes)


def gluon_mobilenet_v2():
    """GluonCV's mobilenet_v2_1.0: every block is expanded, the first by 1."""
    start = "mobilenetv20_features_"

    def layer(name, conv_id, kernel):
        norm = f"{name}batchnorm{conv_id}_"
        leaves = {f"{norm}{leaf}": (kernel[0],) for leaf in ("gamma", "beta", "running_mean", "running_var")}
        return {f"{name}conv{conv_id}_weight": kernel} | leaves

    shapes, channels, block_id = layer(start, 0, (32, 3, 3, 3)), 32, 0
    for expansion, channels_out, repeats in MOBILENET_V2_SETTING:
        for _ in range(repeats):
            block, hidden = f"{start}linearbottleneck{block_id}_", expansion * channels
            shapes |= layer(block, 0, (hidden, channels, 1, 1)) | layer(block, 1, (hidden, 1, 3, 3))
            shapes |= layer(block, 2, (channels_out, hidden, 1, 1))
            channels, block_id = channels_out, block_id + 1
    return shapes | layer(start, 1, (1280, 320, 1, 1)) | {"mobilenetv20_output_pred_weight": (1000, 1280, 1, 1)}
