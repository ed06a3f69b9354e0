"""MobileNetV3 beyond the common suite: its tails and taps, the features of torchvision and of TF's form in timm."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_peers import draw_weights, import_peer, load_state, relative_error, to_torch

from deeplab_jax.backbones.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from deeplab_jax.weights.names import TORCH

IMAGES = jnp.zeros((1, 33, 33, 3))


@pytest.mark.parametrize(
    ("factory", "tail", "expected"),
    [
        # (expansion, output) from the last strided block on, then the last convolution; TF deeplab's
        # feature_extractor.py writes the expansions of 'seg' out.
        (mobilenet_v3_large, "full", [(672, 160), (960, 160), (960, 160), 960]),
        (mobilenet_v3_large, "reduced", [(672, 80), (480, 80), (480, 80), 480]),
        (mobilenet_v3_large, "seg", [(336, 80), (480, 80), (480, 80), 480]),
        (mobilenet_v3_small, "reduced", [(288, 48), (288, 48), (288, 48), 288]),
        (mobilenet_v3_small, "seg", [(144, 48), (288, 48), (288, 48), 288]),
    ],
)
def test_tails_have_their_systems_channels(factory, tail, expected):
    model = factory(output_stride=16, tail=tail)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))["params"]
    num_blocks = sum(name.startswith("block") for name in params)
    blocks = [params[f"block{block_id}"] for block_id in range(num_blocks - 3, num_blocks)]
    found = [tuple(block[part]["conv"]["kernel"].shape[-1] for part in ("expand", "project")) for block in blocks]
    assert [*found, params["last"]["conv"]["kernel"].shape[-1]] == expected


@pytest.mark.parametrize(
    ("factory", "tap", "channels"),
    [
        (mobilenet_v3_large, "last", [24, 40, 112]),
        (mobilenet_v3_large, "first", [24, 40, 80]),
        (mobilenet_v3_large, "depthwise", [72, 120, 672]),
        (mobilenet_v3_small, "last", [16, 24, 48]),
        (mobilenet_v3_small, "first", [16, 24, 40]),
        (mobilenet_v3_small, "depthwise", [16, 88, 144]),
    ],
)
def test_taps_are_declared_and_true(factory, tap, channels):
    model = factory(output_stride=32, low_level_tap=tap)
    features = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], jnp.zeros((1, 65, 97, 3))
    )
    *lower, deepest = model.feature_info
    assert [(info.stride, info.channels) for info in lower] == list(zip((4, 8, 16), channels, strict=True))
    assert features[deepest.name].shape[-1] == deepest.channels == (960 if factory is mobilenet_v3_large else 576)
    for info in lower:
        assert features[info.name].shape == (1, 64 // info.stride + 1, 96 // info.stride + 1, info.channels)


@pytest.mark.parametrize(("carrier_rate", "rates"), [("old", (1, 2, 2)), ("new", (2, 2, 2))])
def test_the_block_that_carried_the_stride_has_the_rate_of_its_system(carrier_rate, rates):
    model = mobilenet_v3_large(output_stride=16, carrier_rate=carrier_rate)
    assert tuple(plan.rate for _, plan in model._units()[-3:]) == rates


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tail": "short"}, "'full' or 'reduced' or 'seg'"),
        ({"low_level_tap": "second"}, "'last' or 'first' or 'depthwise'"),
        ({"carrier_rate": "newest"}, "'old' or 'new'"),
        ({"output_stride": 64}, "short of 64"),
    ],
)
def test_options_that_do_not_exist_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        mobilenet_v3_small(**{"output_stride": 16, **arguments}).feature_info  # noqa: B018


def _torchvision_rules(layers):
    """Its blocks are sequences whose length depends on what they have: the kind of each part tells which it is."""
    layers = list(layers)
    rules = [*TORCH.conv_norm(r"0\.0", r"0\.1", "stem")]
    for block_id, layer in enumerate(layers[1:-1]):
        kinds = [type(part).__name__ for part in layer.block]
        names = ["expand", "depthwise", "project"][-kinds.count("Conv2dNormActivation") :]
        for part_id, kind in enumerate(kinds):
            part = rf"{block_id + 1}\.block\.{part_id}\."
            if kind == "SqueezeExcitation":
                module = f"block{block_id}/squeeze_excite"
                rules += TORCH.conv(f"{part}fc1", f"{module}/reduce", bias=True)
                rules += TORCH.conv(f"{part}fc2", f"{module}/expand", bias=True)
                continue
            name = names.pop(0)
            conv_norm = TORCH.depthwise_norm if name == "depthwise" else TORCH.conv_norm
            rules += conv_norm(f"{part}0", f"{part}1", f"block{block_id}/{name}")
    last = rf"{len(layers) - 1}\."
    return [*rules, *TORCH.conv_norm(f"{last}0", f"{last}1", "last")]


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("large", (65, 97), {"dilated": True}),
        ("large", (64, 96), {"dilated": False}),
        ("small", (64, 96), {"dilated": True, "reduced_tail": True}),
        ("small", (65, 97), {"dilated": False}),
    ],
    ids=["large-16-odd", "large-32-even", "small-16-even-reduced", "small-32-odd"],
)
def test_features_are_torchvisions(name, size, arguments, rng):
    """Tapped as its deeplabv3 and lraspp do: the strided blocks, and the last convolution."""
    images = rng.normal(size=(1, *size, 3)).astype(np.float32)
    models = import_peer("torchvision.models")
    peer = getattr(models, f"mobilenet_v3_{name}")(weights=None, **arguments).features
    draw_weights(peer, rng, rng.normal(size=(2, 128, 128, 3)).astype(np.float32))
    model = {"large": mobilenet_v3_large, "small": mobilenet_v3_small}[name](
        output_stride=16 if arguments["dilated"] else 32,
        tail="reduced" if "reduced_tail" in arguments else "full",
        low_level_tap="first",
        carrier_rate="new",
        padding="symmetric",
    )
    variables = load_state(peer, _torchvision_rules(peer), model, IMAGES)
    features = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    taps, y = [], to_torch(images)
    for layer in peer:
        y = layer(y)
        if getattr(layer, "_is_cn", False):  # torchvision's mark of a strided block
            taps.append(y)
    for info, tap in zip(model.feature_info, [*taps[-4:][: len(features) - 1], y], strict=True):
        assert relative_error(features[info.name], tap) < 1e-4, info.name


def _timm_rules(num_blocks_by_stage):
    """timm counts blocks within stages; without an expansion the projection is its 'conv_pw'."""
    rules, block_id = [*TORCH.conv_norm("conv_stem", "bn1", "stem")], 0
    for stage_id, num_blocks in enumerate(num_blocks_by_stage):
        for unit_id in range(num_blocks):
            block, ours = rf"blocks\.{stage_id}\.{unit_id}\.", f"block{block_id}/"
            convs = ["conv_pw", "conv_dw", "conv_pwl"] if stage_id else ["conv_dw", "conv_pw"]
            names = ["expand", "depthwise", "project"][-len(convs) :]
            for norm_id, (conv, name) in enumerate(zip(convs, names, strict=True), start=1):
                conv_norm = TORCH.depthwise_norm if name == "depthwise" else TORCH.conv_norm
                rules += conv_norm(f"{block}{conv}", f"{block}bn{norm_id}", f"{ours}{name}")
            rules += TORCH.conv(rf"{block}se\.conv_(reduce|expand)", f"{ours}squeeze_excite/{{1}}", bias=True)
            block_id += 1
    last = rf"blocks\.{len(num_blocks_by_stage)}\.0\."
    return [*rules, *TORCH.conv_norm(f"{last}conv", f"{last}bn1", "last")]


@pytest.mark.peer
@pytest.mark.parametrize(("output_stride", "size"), [(32, (65, 64)), (16, (64, 96))])
def test_features_in_tfs_form_are_timms(output_stride, size, rng):
    """TensorFlow's padding, its rounding at width 0.75, and the old rate in the block that carried the stride."""
    timm = import_peer("timm")
    arguments = {"pretrained": False, "features_only": True, "output_stride": output_stride}
    images = rng.normal(size=(1, *size, 3)).astype(np.float32)
    peer = timm.create_model("tf_mobilenetv3_small_075", **arguments)
    draw_weights(peer, rng, rng.normal(size=(2, 128, 128, 3)).astype(np.float32))
    model = mobilenet_v3_small(output_stride=output_stride, width=0.75)
    variables = load_state(peer, _timm_rules((1, 2, 3, 2, 3)), model, IMAGES)
    features = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    _, *maps = peer(to_torch(images))
    wanted = [*maps[: len(features) - 1], maps[-1]]
    for info, tap in zip(model.feature_info, wanted, strict=True):
        assert relative_error(features[info.name], tap) < 1e-4, info.name
