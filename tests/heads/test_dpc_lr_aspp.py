"""The dense prediction cell and LR-ASPP beyond the common suite: who reads whom, rates, counts, both systems' forms."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_peers import draw_weights, import_peer, load_state, relative_error, to_torch

from deeplab_jax.heads.dpc import DPC, TOP1_CITYSCAPES, Branch, dpc
from deeplab_jax.heads.lr_aspp import lr_aspp
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import FeatureInfo
from deeplab_jax.weights.names import TORCH

DEEPEST = FeatureInfo("stride16", 20, 16)
INFO = (FeatureInfo("stride8", 12, 8), DEEPEST)


def _features(rng, low=(9, 13), high=(5, 7)):
    return {
        "stride8": rng.normal(size=(2, *low, 12)).astype(np.float32),
        "stride16": rng.normal(size=(2, *high, 20)).astype(np.float32),
    }


def _count(shapes):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_each_branch_of_the_cell_reads_what_was_found_for_it(rng):
    """By gradient: a branch's kernel moves that branch and those that read it, directly or not."""
    model = DPC(16, channels=4)
    x = rng.normal(size=(1, 9, 9, 4)).astype(np.float32)
    variables = jax.jit(lambda x: model.init(jax.random.key(0, impl="rbg"), x, train=False))(x)
    num_branches = len(TOP1_CITYSCAPES)

    @jax.jit
    def gradient(params, branch_id):
        """Of the outputs of a cell whose projection sees one branch only."""
        seen = jnp.repeat(jnp.arange(num_branches) == branch_id, 4)[None, None, :, None]

        def total(params):
            projection = params["projection"]
            masked = projection | {"conv": {"kernel": jnp.where(seen, 1.0, 0.0) * projection["conv"]["kernel"]}}
            tree = {"params": params | {"projection": masked}, "batch_stats": variables["batch_stats"]}
            y = model.apply(tree, x, train=False)
            return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum()

        return jax.grad(total)(params)

    read = {}
    for branch_id in range(num_branches):
        gradients = gradient(variables["params"], branch_id)
        kernels = [gradients[f"branch{k}"]["depthwise"]["conv"]["depthwise_kernel"] for k in range(num_branches)]
        read[branch_id] = {k for k, kernel in enumerate(kernels) if np.any(kernel)}
    assert read == {0: {0}, 1: {0, 1}, 2: {0, 1, 2}, 3: {0, 3}, 4: {0, 4}}


def test_options_of_aspp_are_refused_by_the_cell():
    info = (FeatureInfo("stride4", 12, 4), DEEPEST)
    with pytest.raises(ValueError, match=r"atrous_rates=\(6,\): of ASPP"):
        dpc(num_classes=3, feature_info=info, align_corners=True, atrous_rates=(6,))


# Vertical first: dense_prediction_cell_branch5_top1_cityscapes.json, at its output stride and half that.
RATES = {
    16: [(1, 6), (18, 15), (6, 3), (1, 1), (6, 21)],
    8: [(2, 12), (36, 30), (12, 6), (2, 2), (12, 42)],
}


@pytest.mark.parametrize("output_stride", RATES)
def test_rates_follow_the_output_stride(output_stride):
    text = (
        jax.jit(lambda x: DPC(output_stride, channels=4).init_with_output(jax.random.key(0), x, train=False)[0])
        .trace(jnp.ones((1, 9, 9, 2)))
        .lower(lowering_platforms=("cuda",))
        .as_text()
    )
    wanted = [rate for rate in RATES[output_stride] if rate != (1, 1)]
    found = [line.split("rhs_dilate = [")[1].split("]")[0] for line in text.splitlines() if "rhs_dilate = [" in line]
    assert [rate for rate in found if rate != "1, 1"] == [
        f"{vertical}, {horizontal}" for vertical, horizontal in wanted
    ]


def test_the_cell_at_full_size_has_its_parameters():
    """Less than half of separable ASPP's on the same 2048 features, 3 019 776."""
    shapes = jax.eval_shape(lambda: DPC(16).init(jax.random.key(0), jnp.zeros((1, 5, 5, 2048)), train=False))
    first = 9 * 2048 + 2048 * 256 + 2 * (2048 + 256)
    others = 4 * (9 * 256 + 256 * 256 + 2 * (256 + 256))
    assert _count(shapes) == first + others + 5 * 256 * 256 + 2 * 256 == 1_150_976


def test_cells_of_the_whole_search_space_can_be_built(rng):
    """Pooling over a 1 x 1 grid sees every pixel, over a finer one its window, and a 1x1 convolution its own."""
    cell = (Branch("conv1x1", (1, 1), -1), Branch("pyramid_pooling", (1, 1), 0), Branch("pyramid_pooling", (2, 4), -1))
    x = rng.uniform(0.1, 1.0, size=(1, 9, 9, 3)).astype(np.float32)

    def reach(branch):
        """How many pixels the first of the output depends on, in a network of ones, where no ReLU is shut."""
        model = DPC(16, cell=(branch,), channels=8)
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
        gradient = jax.jit(jax.grad(lambda x: model.apply(ones, x, train=False)[0, 0, 0].sum()))(x)
        return int((np.abs(gradient).max(-1) > 0).sum())

    assert [reach(branch._replace(source=-1)) for branch in cell] == [1, 81, 15]
    shape = jax.eval_shape(
        lambda x: DPC(16, cell=cell, channels=8).init_with_output(jax.random.key(0), x, train=False)[0], x
    )
    assert shape.shape == (1, 9, 9, 8)


@pytest.mark.parametrize(
    ("branches", "words"),
    [
        ((Branch("conv5x5", (1, 1), -1),), "branch 0 has the operation 'conv5x5'"),
        ((Branch("conv3x3", (1, 1), 0),), "branch 0 reads branch 0, which is not before it"),
        ((Branch("conv1x1", (1, 1), -1), Branch("conv3x3", (1, 1), 2)), "branch 1 reads branch 2"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(branches, words):
    with pytest.raises(ValueError, match=words):
        DPC(16, cell=branches)


_DPC = functools.partial(dpc, aspp_channels=8, decoder_channels=8, low_level_channels=4, low_level_stride=8)


def test_the_cells_rates_do_not_exist_at_output_stride_32():
    module = DPC(32, channels=4)
    with pytest.raises(ValueError, match=r"rate 1 .* no whole number at output stride 32: give a multiple of 2"):
        jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 9, 9, 2)), train=False))


@pytest.mark.parametrize("factory", [_DPC, functools.partial(lr_aspp, channels=8)])
def test_trains_at_batch_size_1_and_every_parameter_gets_a_gradient(factory, rng):
    features = {name: x[:1] for name, x in _features(rng).items()}
    head = factory(num_classes=3, feature_info=INFO, align_corners=True)
    variables = jax.jit(lambda f: head.init(jax.random.key(0, impl="rbg"), f, train=False))(features)

    @jax.jit
    def gradient(params):
        def loss(params):
            tree = {"params": params, "batch_stats": variables["batch_stats"]}
            rngs = {"dropout": jax.random.key(1)}
            logits, _ = head.apply(tree, features, train=True, mutable=["batch_stats"], rngs=rngs)
            return (logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)).sum()

        return jax.grad(loss)(params)

    leaves = jax.tree_util.tree_leaves_with_path(gradient(variables["params"]))
    assert all(np.isfinite(g).all() for _, g in leaves)
    assert not [jax.tree_util.keystr(path) for path, g in leaves if not np.any(g)]


def test_lr_aspp_completes_torchvisions_parameter_count():
    """lraspp_mobilenet_v3_large has 3 221 538, of which 2 971 952 are its backbone's (tests/backbones)."""
    info = (FeatureInfo("stride8", 40, 8), FeatureInfo("stride16", 960, 16))
    head = lr_aspp(num_classes=21, feature_info=info, align_corners=False)
    features = {"stride8": jnp.zeros((1, 8, 8, 40)), "stride16": jnp.zeros((1, 4, 4, 960))}
    assert _count(jax.eval_shape(lambda: head.init(jax.random.key(0), features, train=False))) == 3_221_538 - 2_971_952


@pytest.mark.peer
@pytest.mark.parametrize(("low", "high"), [((9, 13), (5, 7)), ((8, 12), (4, 6))], ids=["odd", "even"])
def test_lr_aspp_is_torchvisions(low, high, rng):
    peer_module = import_peer("torchvision.models.segmentation.lraspp")
    peer = draw_weights(peer_module.LRASPPHead(12, 20, 5, 16), rng)
    head = lr_aspp(num_classes=5, feature_info=INFO, align_corners=False, channels=16)
    features = _features(rng, low, high)
    rules = [
        *TORCH.conv_norm(r"cbr\.0", r"cbr\.1", "high"),
        *TORCH.conv(r"scale\.1", "gate"),
        *TORCH.conv(r"(low|high)_classifier", "{1}_logits", bias=True),
    ]
    variables = load_state(peer, rules, head, features)
    logits = jax.jit(lambda v, f: head.apply(v, f, train=False))(variables, features)
    wanted = peer({"low": to_torch(features["stride8"]), "high": to_torch(features["stride16"])})
    # Float32 products of 20 and 16 terms, and the resize in the other order.
    assert relative_error(logits, wanted) < 1e-5


def test_lr_aspp_in_tf_deeplabs_form(rng):
    """Against NumPy: strided windows, a gate with bias by the hard sigmoid, laid back over the grid."""
    high = rng.normal(size=(2, 6, 11, 20)).astype(np.float32)
    features = {"stride8": rng.normal(size=(2, 11, 21, 12)).astype(np.float32), "stride16": high}
    head = lr_aspp(
        num_classes=3,
        feature_info=INFO,
        align_corners=True,
        channels=8,
        gate="hard_sigmoid",
        gate_bias=True,
        pooling_size=(33, 65),  # 3 x 5 cells at stride 16
        pooling_strides=(2, 3),
    )
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, train=False))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 1.0, leaf.shape).astype(np.float32), shapes)
    params, stats = variables["params"], variables["batch_stats"]["high"]["norm"]

    pooled = np.zeros((2, 2, 3, 20), np.float32)
    for row, column in itertools.product(range(2), range(3)):
        window = high[:, 2 * row : 2 * row + 3, 3 * column : 3 * column + 5]
        pooled[:, row, column] = window.mean((1, 2))
    gate = np.clip(_conv(pooled, params["gate"]) / 6 + 0.5, 0, 1)
    gate = np.asarray(resize_bilinear(jnp.asarray(gate), (6, 11), align_corners=True))
    norm = params["high"]["norm"]
    y = (_conv(high, params["high"]["conv"]) - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    y = np.maximum(y * norm["scale"] + norm["bias"], 0) * gate
    y = np.asarray(resize_bilinear(jnp.asarray(y), (11, 21), align_corners=True))
    wanted = _conv(y, params["high_logits"]) + _conv(features["stride8"], params["low_logits"])

    logits = jax.jit(lambda v, f: head.apply(v, f, train=False))(variables, features)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)


def _conv(x, params):
    return x @ params["kernel"][0, 0] + params.get("bias", 0)


def test_a_window_larger_than_the_image_is_the_image(rng):
    features = _features(rng)
    build = functools.partial(lr_aspp, num_classes=3, feature_info=INFO, align_corners=True, channels=8)
    whole, fixed = build(), build(pooling_size=(769, 769), pooling_strides=(4, 5))
    variables = jax.jit(lambda f: whole.init(jax.random.key(0, impl="rbg"), f, train=False))(features)
    first, second = (
        jax.jit(lambda v, f, h=head: h.apply(v, f, train=False))(variables, features) for head in (whole, fixed)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gate": "tanh"}, "gate='tanh' must be 'sigmoid' or 'hard_sigmoid'"),
        ({"low_level_stride": 4}, "no feature map 'stride4': the backbone has stride8, stride16"),
    ],
)
def test_an_lr_aspp_that_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        lr_aspp(num_classes=3, feature_info=INFO, align_corners=True, **arguments)
