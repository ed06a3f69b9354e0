"""The rule engine: what it places, and that it lists all it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from deeplab_jax.types import WeightRule
from deeplab_jax.weights.rules import load_pretrained, reorder

RULES = (
    WeightRule(r"layer(\d+)\.weight", r"params/block\1/kernel", "oihw"),
    WeightRule(r"layer(\d+)\.bias", r"params/block\1/bias", "copy"),
)


def _target():
    return {"params/block1/kernel": np.zeros((3, 3, 2, 4), np.float32), "params/block1/bias": np.zeros(4, np.float32)}


def test_fills_by_rule_and_leaves_the_target_alone(rng):
    weight = rng.normal(size=(4, 2, 3, 3))
    target = _target()
    filled, report = load_pretrained({"layer1.weight": weight, "layer1.bias": np.ones(4)}, RULES, target)
    np.testing.assert_allclose(filled["params/block1/kernel"], weight.transpose(2, 3, 1, 0), rtol=1e-6)
    assert filled["params/block1/kernel"].dtype == np.float32
    assert report.is_complete
    assert not target["params/block1/bias"].any()


def test_lists_missing_unexpected_misshapen_and_skipped():
    source = {
        "layer1.weight": np.zeros((5, 2, 3, 3)),
        "layer2.weight": np.zeros((4, 2, 3, 3)),
        "step": np.zeros(()),
        "momentum": np.zeros(3),
    }
    _, report = load_pretrained(source, RULES, _target(), skip=("momentum",))
    assert not report.is_complete
    assert report.missing == ("params/block1/bias", "params/block1/kernel")
    assert report.unexpected == ("layer2.weight", "step")
    assert report.misshapen == ("layer1.weight: (3, 3, 2, 5), wanted params/block1/kernel: (3, 3, 2, 4)",)
    assert report.skipped == ("momentum",)
    for name in ("layer2.weight", "step", "momentum", "(3, 3, 2, 5)"):
        assert name in str(report)


def test_an_unknown_transform_is_named():
    with pytest.raises(ValueError, match="unknown transform 'hwoi'"):
        reorder(np.zeros((1, 1, 1, 1)), "hwoi")
