"""Strides turned into rates, against the plans that published networks use."""

from __future__ import annotations

import pytest

from deeplab_jax.nn.plan import atrous_plan


def _last_stage(strides, **arguments):
    return [(unit.stride, unit.rate) for unit in atrous_plan(strides, **arguments)][-3:]


def test_multi_grid_where_the_last_unit_carries_the_stride():
    strides = [1, 1, 2] + [1, 1, 1, 2] + [1] * 5 + [2] + [1, 1, 1]  # TF-slim's ResNet-50
    plan = _last_stage(strides, output_stride=16, unit_rates=[1] * 13 + [1, 2, 4])
    assert plan == [(1, 2), (1, 4), (1, 8)]


def test_multi_grid_where_the_first_unit_carries_the_stride():
    strides = [1, 1, 1] + [2, 1, 1, 1] + [2] + [1] * 5 + [2, 1, 1]  # torchvision's ResNet-50
    plan = _last_stage(strides, output_stride=16, unit_rates=[1] * 13 + [1, 2, 4])
    assert plan == [(1, 1), (1, 4), (1, 8)]


@pytest.mark.parametrize(
    ("output_stride", "rates"), [(32, [1, 1, 1, 1]), (16, [1, 1, 1, 2]), (8, [1, 1, 2, 4]), (4, [1, 2, 4, 8])]
)
def test_rates_double_with_each_stride_left_out(output_stride, rates):
    plan = atrous_plan([2, 2, 2, 1], output_stride=output_stride)
    assert [unit.rate for unit in plan] == rates
    assert plan[-1].output_stride == output_stride


@pytest.mark.parametrize(
    ("strides", "output_stride", "words"),
    [([2, 2], 2, "below the stem"), ([4, 4], 8, "skip 8"), ([2, 1], 16, "short of 16")],
)
def test_an_output_stride_that_cannot_be_met_is_refused(strides, output_stride, words):
    with pytest.raises(ValueError, match=words):
        atrous_plan(strides, output_stride=output_stride)
