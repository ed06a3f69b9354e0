"""Names and shapes of TensorFlow's, TFLite's and Keras' arrays, written out from the structure of their sources.

Nothing here comes from the layouts: what they read is held against it. Channels are those of the sources' lists.
"""

from __future__ import annotations

NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def _batch_norm(scope, channels, joint="/BatchNorm/"):
    return {f"{scope}{joint}{leaf}": (channels,) for leaf in NORM}


def _conv(scope, size, channels_in, channels, *, bias=False):
    """slim.conv2d: with batch norm, or with biases alone."""
    kernel = {f"{scope}/weights": (size, size, channels_in, channels)}
    return kernel | ({f"{scope}/biases": (channels,)} if bias else _batch_norm(scope, channels))


def _depthwise(scope, channels, size=3):
    return {f"{scope}/depthwise_weights": (size, size, channels, 1)} | _batch_norm(scope, channels)


def _separable(scope, channels_in, channels):
    """split_separable_conv2d."""
    return _depthwise(f"{scope}_depthwise", channels_in) | _conv(f"{scope}_pointwise", 1, channels_in, channels)


def with_training(shapes):
    """As a training run leaves its checkpoint: momentum beside every trained variable, and the step."""
    trained = {name: shape for name, shape in shapes.items() if "/moving_" not in name}
    return shapes | {f"{name}/Momentum": shape for name, shape in trained.items()} | {"global_step": ()}


# core/xception.py: block, channels of its three convolutions, skip connection, units.
_ENTRY = (("entry_flow/block1", (128,) * 3), ("entry_flow/block2", (256,) * 3), ("entry_flow/block3", (728,) * 3))
_ENTRY_71 = (
    ("entry_flow/block1", (128,) * 3),
    ("entry_flow/block2", (256,) * 3),
    ("entry_flow/block3", (256,) * 3),
    ("entry_flow/block4", (728,) * 3),
    ("entry_flow/block5", (728,) * 3),
)


def xception(depth):
    scope = f"xception_{depth}"
    blocks = [(name, depths, "conv", 1) for name, depths in (_ENTRY_71 if depth == 71 else _ENTRY)]
    blocks += [("middle_flow/block1", (728,) * 3, "sum", 8 if depth == 41 else 16)]
    blocks += [("exit_flow/block1", (728, 1024, 1024), "conv", 1), ("exit_flow/block2", (1536, 1536, 2048), "none", 1)]
    shapes = _conv(f"{scope}/entry_flow/conv1_1", 3, 3, 32) | _conv(f"{scope}/entry_flow/conv1_2", 3, 32, 64)
    channels = 64
    for block, depths, skip, num_units in blocks:
        for unit_id in range(1, num_units + 1):
            module = f"{scope}/{block}/unit_{unit_id}/xception_module"
            if skip == "conv":
                shapes |= _conv(f"{module}/shortcut", 1, channels, depths[-1])
            for conv_id, depth_out in enumerate(depths, start=1):
                shapes |= _separable(f"{module}/separable_conv{conv_id}", channels, depth_out)
                channels = depth_out
    return shapes


def resnet_v1(depth, *, beta):
    """core/resnet_v1_beta.py."""
    scope, shapes = f"resnet_v1_{depth}", {}
    if beta:
        for conv_id, (channels_in, channels) in enumerate([(3, 64), (64, 64), (64, 128)], start=1):
            shapes |= _conv(f"{scope}/conv1_{conv_id}", 3, channels_in, channels)
    else:
        channels = 64
        shapes |= _conv(f"{scope}/conv1", 7, 3, 64)
    for block_id, (base_depth, num_units) in enumerate(
        zip((64, 128, 256, 512), (3, 4, 6 if depth == 50 else 23, 3), strict=True), start=1
    ):
        for unit_id in range(1, num_units + 1):
            unit = f"{scope}/block{block_id}/unit_{unit_id}/bottleneck_v1"
            if channels != 4 * base_depth:
                shapes |= _conv(f"{unit}/shortcut", 1, channels, 4 * base_depth)
            shapes |= _conv(f"{unit}/conv1", 1, channels, base_depth)
            shapes |= _conv(f"{unit}/conv2", 3, base_depth, base_depth)
            shapes |= _conv(f"{unit}/conv3", 1, base_depth, 4 * base_depth)
            channels = 4 * base_depth
    return shapes


# nets/mobilenet/mobilenet_v2.py: output channels of expanded_conv, expanded_conv_1, ... at multiplier 1.
_V2_OUTPUTS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
# The same at other multipliers, as the checkpoints have them: TF deeplab's half network, TF-slim's classifiers.
_V2_HALF = (8, 12, 12, 16, 16, 16, 32, 32, 32, 32, 48, 48, 48, 80, 80, 80, 160)
_V2_WIDE = (24, 32, 32, 48, 48, 48, 88, 88, 88, 88, 136, 136, 136, 224, 224, 224, 448)  # 1.4
_V2_NARROW = (8, 8, 8, 16, 16, 16, 24, 24, 24, 24, 32, 32, 32, 56, 56, 56, 112)  # 0.35
MOBILENET_V2 = {1.0: (32, _V2_OUTPUTS), 0.5: (16, _V2_HALF), 1.4: (48, _V2_WIDE), 0.35: (16, _V2_NARROW)}


def _mobilenet_v2_blocks(multiplier):
    """(suffix of the scope, input, expanded, output channels) of each block."""
    channels, outputs = MOBILENET_V2[multiplier]
    for block_id, channels_out in enumerate(outputs):
        expanded = channels if block_id == 0 else 6 * channels
        yield (f"_{block_id}" if block_id else ""), channels, expanded, channels_out
        channels = channels_out


def mobilenet_v2(multiplier):
    shapes = _conv("MobilenetV2/Conv", 3, 3, MOBILENET_V2[multiplier][0])
    for suffix, channels, expanded, channels_out in _mobilenet_v2_blocks(multiplier):
        block = f"MobilenetV2/expanded_conv{suffix}"
        if suffix:
            shapes |= _conv(f"{block}/expand", 1, channels, expanded)
        shapes |= _depthwise(f"{block}/depthwise", expanded)
        shapes |= _conv(f"{block}/project", 1, expanded, channels_out)
    return shapes


# nets/mobilenet/mobilenet_v3.py: kernel, expanded channels, squeezed channels (0: none), output channels.
_V3_LARGE = (
    *((3, 16, 0, 16), (3, 64, 0, 24), (3, 72, 0, 24), (5, 72, 24, 40), (5, 120, 32, 40), (5, 120, 32, 40)),
    *((3, 240, 0, 80), (3, 200, 0, 80), (3, 184, 0, 80), (3, 184, 0, 80), (3, 480, 120, 112), (3, 672, 168, 112)),
)
_V3_SMALL = (
    *((3, 16, 8, 16), (3, 72, 0, 24), (3, 88, 0, 24), (5, 96, 24, 40), (5, 240, 64, 40), (5, 240, 64, 40)),
    *((5, 120, 32, 48), (5, 144, 40, 48)),
)
MOBILENET_V3 = {
    "large": ((*_V3_LARGE, (5, 672, 168, 160), (5, 960, 240, 160), (5, 960, 240, 160)), 960),
    "small": ((*_V3_SMALL, (5, 288, 72, 96), (5, 576, 144, 96), (5, 576, 144, 96)), 576),
    # TF deeplab's *_seg: the last three blocks and Conv_1 halved.
    "large_seg": ((*_V3_LARGE, (5, 336, 88, 80), (5, 480, 120, 80), (5, 480, 120, 80)), 480),
    "small_seg": ((*_V3_SMALL, (5, 144, 40, 48), (5, 288, 72, 48), (5, 288, 72, 48)), 288),
}


def mobilenet_v3(name):
    blocks, last_channels = MOBILENET_V3[name]
    shapes, channels = _conv("MobilenetV3/Conv", 3, 3, 16), 16
    for block_id, (size, expanded, squeezed, channels_out) in enumerate(blocks):
        block = f"MobilenetV3/expanded_conv{f'_{block_id}' if block_id else ''}"
        if expanded != channels:
            shapes |= _conv(f"{block}/expand", 1, channels, expanded)
        shapes |= _depthwise(f"{block}/depthwise", expanded, size)
        if squeezed:
            shapes |= _conv(f"{block}/squeeze_excite/Conv", 1, expanded, squeezed, bias=True)
            shapes |= _conv(f"{block}/squeeze_excite/Conv_1", 1, squeezed, expanded, bias=True)
        shapes |= _conv(f"{block}/project", 1, expanded, channels_out)
        channels = channels_out
    return shapes | _conv("MobilenetV3/Conv_1", 1, channels, last_channels)


def head(channels, num_classes, *, num_rates=3, low_level=0, separable=True):
    """model.py: ASPP, a decoder where there are `low_level` channels, logits."""
    shapes = _conv("image_pooling", 1, channels, 256) | _conv("aspp0", 1, channels, 256)
    for branch in [f"aspp{branch_id}" for branch_id in range(1, num_rates + 1)]:
        shapes |= _separable(branch, channels, 256) if separable else _conv(branch, 3, channels, 256)
    shapes |= _conv("concat_projection", 1, 256 * (2 + num_rates), 256)
    if low_level:
        shapes |= _conv("decoder/feature_projection0", 1, low_level, 48)
        for conv_id, channels_in in enumerate((256 + 48, 256)):
            if separable:
                shapes |= _separable(f"decoder/decoder_conv{conv_id}", channels_in, 256)
            else:  # slim.repeat
                shapes |= _conv(f"decoder/decoder_conv0/decoder_conv0_{conv_id + 1}", 3, channels_in, 256)
    return shapes | _conv("logits/semantic", 1, 256, num_classes, bias=True)


def dpc_head(channels, low_level, num_classes):
    """core/dense_prediction_cell.py in the place of ASPP: five separable branches, the first on the features."""
    shapes = _conv("meta_architecture/concat_projection", 1, 5 * 256, 256)
    for branch_id in range(5):
        shapes |= _separable(f"meta_architecture/branch{branch_id}", 256 if branch_id else channels, 256)
    decoder = head(channels, num_classes, low_level=low_level)
    return shapes | {name: shape for name, shape in decoder.items() if name.startswith(("decoder/", "logits/"))}


def lr_aspp(channels, low_level, num_classes):
    """model.py with the flags of its MobileNetV3 networks: a gate without norm, two classifiers as the decoder."""
    return (
        _conv("image_pooling", 1, channels, 128, bias=True)
        | _conv("aspp0", 1, channels, 128)
        | _conv("decoder/feature_projection0", 1, low_level, num_classes, bias=True)
        | _conv("decoder/decoder_conv0", 1, 128, num_classes, bias=True)
    )


def classifier(scope, channels, num_classes=1001, *, name="logits"):
    return _conv(f"{scope}/{name}", 1, channels, num_classes, bias=True)


def last_conv(channels):
    """What MobileNetV2's classifiers have behind their blocks."""
    return _conv("MobilenetV2/Conv_1", 1, channels, max(1280, 4 * channels))


def _folded(kernel, kernel_shape, channels, bias):
    return {kernel: kernel_shape, bias: (channels,)}


def tflite(multiplier, num_classes):
    """What the converter makes of MobileNetV2 with image pooling and a 1x1; kernels are (out, height, width, in)."""

    def dense(scope, size, channels_in, channels):
        kernel = (channels, size, size, channels_in)
        return _folded(f"{scope}/weights", kernel, channels, f"{scope}/Conv2D_bias")

    shapes = dense("MobilenetV2/Conv", 3, 3, MOBILENET_V2[multiplier][0])
    for suffix, channels, expanded, channels_out in _mobilenet_v2_blocks(multiplier):
        block = f"MobilenetV2/expanded_conv{suffix}"
        if suffix:
            shapes |= dense(f"{block}/expand", 1, channels, expanded)
        depthwise = f"{block}/depthwise/depthwise_"
        shapes |= _folded(f"{depthwise}weights", (1, 3, 3, expanded), expanded, f"{depthwise}bias")
        shapes |= dense(f"{block}/project", 1, expanded, channels_out)
    shapes |= dense("image_pooling", 1, channels_out, 256) | dense("aspp0", 1, channels_out, 256)
    return shapes | dense("concat_projection", 1, 512, 256) | dense("logits/semantic", 1, 256, num_classes)


def tfslim_folded(multiplier):
    def dense(scope, size, channels_in, channels):
        kernel = (channels, size, size, channels_in)
        return _folded(f"{scope}_Conv2D_weights", kernel, channels, f"{scope}_Conv2D_bias")

    shapes = dense("MobilenetV2_Conv", 3, 3, MOBILENET_V2[multiplier][0])
    for suffix, channels, expanded, channels_out in _mobilenet_v2_blocks(multiplier):
        block = f"MobilenetV2_expanded_conv{suffix}"
        if suffix:
            shapes |= dense(f"{block}_expand", 1, channels, expanded)
        depthwise = f"{block}_depthwise_depthwise_"
        shapes |= _folded(f"{depthwise}weights", (1, 3, 3, expanded), expanded, f"{depthwise}bias")
        shapes |= dense(f"{block}_project", 1, expanded, channels_out)
    return shapes | dense("MobilenetV2_Conv_1", 1, channels_out, 1280)


def _keras_conv(name, size, channels_in, channels):
    return {f"{name}/kernel": (size, size, channels_in, channels)} | _batch_norm(f"{name}_BN", channels, "/")


def _keras_depthwise(name, channels):
    return {f"{name}/depthwise_kernel": (3, 3, channels, 1)} | _batch_norm(f"{name}_BN", channels, "/")


def _keras_separable(name, channels_in, channels):
    """SepConv_BN."""
    pointwise = _keras_conv(f"{name}_pointwise", 1, channels_in, channels)
    return _keras_depthwise(f"{name}_depthwise", channels_in) | pointwise


def bonlime_xception(num_classes):
    shapes = _keras_conv("entry_flow_conv1_1", 3, 3, 32) | _keras_conv("entry_flow_conv1_2", 3, 32, 64)
    units = [(f"entry_flow_block{i}", (channels,) * 3, "conv") for i, channels in ((1, 128), (2, 256), (3, 728))]
    units += [(f"middle_flow_unit_{i + 1}", (728,) * 3, "sum") for i in range(16)]
    units += [("exit_flow_block1", (728, 1024, 1024), "conv"), ("exit_flow_block2", (1536, 1536, 2048), "none")]
    channels = 64
    for unit, depths, skip in units:
        if skip == "conv":
            shapes |= _keras_conv(f"{unit}_shortcut", 1, channels, depths[-1])
        for conv_id, channels_out in enumerate(depths, start=1):
            shapes |= _keras_separable(f"{unit}_separable_conv{conv_id}", channels, channels_out)
            channels = channels_out
    shapes |= _keras_conv("image_pooling", 1, 2048, 256) | _keras_conv("aspp0", 1, 2048, 256)
    for branch_id in (1, 2, 3):
        shapes |= _keras_separable(f"aspp{branch_id}", 2048, 256)
    shapes |= _keras_conv("concat_projection", 1, 1280, 256) | _keras_conv("feature_projection0", 1, 256, 48)
    shapes |= _keras_separable("decoder_conv0", 304, 256) | _keras_separable("decoder_conv1", 256, 256)
    return shapes | {"logits_semantic/kernel": (1, 1, 256, num_classes), "logits_semantic/bias": (num_classes,)}


def bonlime_mobilenet_v2(num_classes):
    shapes = _keras_conv("Conv", 3, 3, 32)
    for suffix, channels, expanded, channels_out in _mobilenet_v2_blocks(1.0):
        block = f"expanded_conv{suffix}_"
        if suffix:
            shapes |= _keras_conv(f"{block}expand", 1, channels, expanded)
        shapes |= _keras_depthwise(f"{block}depthwise", expanded)
        shapes |= _keras_conv(f"{block}project", 1, expanded, channels_out)
    shapes |= _keras_conv("image_pooling", 1, 320, 256) | _keras_conv("aspp0", 1, 320, 256)
    shapes |= _keras_conv("concat_projection", 1, 512, 256)
    logits = "custom_logits_semantic"
    return shapes | {f"{logits}/kernel": (1, 1, 256, num_classes), f"{logits}/bias": (num_classes,)}
