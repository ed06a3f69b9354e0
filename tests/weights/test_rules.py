"""The rule engine: what it places, and that it lists all it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from deeplab_jax.types import WeightRule
from deeplab_jax.weights.rules import load_pretrained, place, reorder

RULES = (
    WeightRule(r"layer(\d+)\.weight", "params/backbone/block{1}/kernel", "oihw"),
    WeightRule(r"layer(\d+)\.bias", "params/backbone/block{1}/bias", "copy"),
)


def _target():
    return {
        "params/backbone/block1/kernel": np.zeros((3, 3, 2, 4), np.float32),
        "params/backbone/block1/bias": np.zeros(4, np.float32),
    }


def test_fills_by_rule_and_leaves_the_target_alone(rng):
    weight = rng.normal(size=(4, 2, 3, 3))
    target = _target()
    filled, report = load_pretrained({"layer1.weight": weight, "layer1.bias": np.ones(4)}, RULES, target)
    np.testing.assert_allclose(filled["params/backbone/block1/kernel"], weight.transpose(2, 3, 1, 0), rtol=1e-6)
    assert filled["params/backbone/block1/kernel"].dtype == np.float32
    assert report.is_complete
    assert not target["params/backbone/block1/bias"].any()


def test_lists_missing_unexpected_misshapen_and_skipped():
    source = {
        "layer1.weight": np.zeros((5, 2, 3, 3)),
        "layer2.weight": np.zeros((4, 2, 3, 3)),
        "step": np.zeros(()),
        "momentum": np.zeros(3),
    }
    _, report = load_pretrained(source, RULES, _target(), skip=("momentum",))
    assert not report.is_complete
    assert report.missing == ("params/backbone/block1/bias", "params/backbone/block1/kernel")
    assert report.unexpected == ("layer2.weight", "step")
    assert report.misshapen == ("layer1.weight: (3, 3, 2, 5), wanted params/backbone/block1/kernel: (3, 3, 2, 4)",)
    assert report.skipped == ("momentum",)
    for name in ("layer2.weight", "step", "(3, 3, 2, 5)", "1 left out on purpose"):
        assert name in str(report)
    assert report.summary == "2 missing, 2 unexpected, 1 misshapen, 1 skipped"


def test_an_unknown_transform_is_named():
    with pytest.raises(ValueError, match="unknown transform 'hwoi'"):
        reorder(np.zeros((1, 1, 1, 1)), "hwoi")


def test_a_target_counts_on_from_the_sources_numbers():
    rule = WeightRule(r"layer(\d)\.(\d+)\.weight", "params/backbone/block{1}_unit{2+1}/kernel", "oihw")
    assert place("layer2.0.weight", [rule]) == ("params/backbone/block2_unit1/kernel", "oihw")
    assert place("layer2.0.bias", [rule]) == ("", "copy")


def test_channel_orders(rng):
    """Image pooling moves from last to first, low-level features from first to last, blue from first to last."""
    kernel = rng.normal(size=(2, 6, 1, 1))  # out, in
    order = {"pool_last": [4, 5, 0, 1, 2, 3], "low_level_first": [4, 5, 0, 1, 2, 3], "bgr": [5, 4, 3, 2, 1, 0]}
    for name, channels in order.items():
        np.testing.assert_array_equal(reorder(kernel, f"oihw+{name}")[0, 0], kernel[:, channels, 0, 0].T)


def test_a_matrix_becomes_a_kernel(rng):
    matrix = rng.normal(size=(4, 6))
    np.testing.assert_array_equal(reorder(matrix, "oi")[0, 0], matrix.T)
    cells = reorder(rng.normal(size=(4, 2 * 7 * 7)), "oi+7x7")
    assert cells.shape == (7, 7, 2, 4)


def test_a_part_that_the_target_lacks_is_left_out():
    rules = (*RULES, WeightRule(r"aux\.weight", "params/auxiliary/kernel", "oihw"))
    source = {"layer1.weight": np.zeros((4, 2, 3, 3)), "layer1.bias": np.zeros(4), "aux.weight": np.zeros((1, 1, 1, 1))}
    _, report = load_pretrained(source, rules, _target())
    assert report.is_complete
    assert report.skipped == ("aux.weight",)
