"""Converts strides to atrous rates: one rule for every backbone, applied when the network is built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class UnitPlan(NamedTuple):
    """Stride and rate of one backbone unit, and the stride of its output."""

    stride: int
    rate: int
    output_stride: int  # input pixels per cell after this unit
    next_rate: int = 1  # of what follows the strided convolution inside the unit
    nominal_stride: int = 1  # before it became a rate
    grid: int = 1  # cells between neighbours on the input's nominal grid


def scaled_rate(rate: int, *, given_at: int, output_stride: int) -> int:
    """The rate at `output_stride` that spans as many image pixels as `rate` does at stride `given_at`.

    Raises:
      ValueError: when it is not an integer.
    """
    scaled, rest = divmod(rate * given_at, output_stride)
    if rest:
        step = output_stride // math.gcd(given_at, output_stride)
        raise ValueError(
            f"rate {rate} (at output stride {given_at}) is no whole number at output stride {output_stride}: "
            f"give a multiple of {step}"
        )
    return scaled


def atrous_plan(
    unit_strides: Sequence[int],
    *,
    output_stride: int,
    stem_stride: int = 4,
    unit_rates: Sequence[int] | None = None,
    carrier_rate: str = "old",
) -> tuple[UnitPlan, ...]:
    """Stride and rate of each unit of a backbone that ends at `output_stride`.

    Each unit keeps its stride until the output stride is reached. From then on a stride becomes a larger rate for the
    units AFTER it: the unit that carried the stride still reads the old grid, so it keeps the old rate. The features,
    subsampled, are then exactly those of the network with its nominal strides. Some systems already give the carrying
    unit the new rate, which is equivalent if its stride comes before its atrous convolution (Caffe's bottlenecks) and
    changes the features otherwise (torchvision's MobileNetV3).

    Args:
      unit_strides: nominal stride of each unit, in order.
      stem_stride: stride of the first unit's input.
      unit_rates: extra factor on each unit's rate (multi-grid); None: all 1.
      carrier_rate: rate of a unit whose stride was converted: 'old' or 'new'.

    Raises:
      ValueError: when the strides cannot reach `output_stride` exactly, or for an unknown `carrier_rate`.

    Source: DeepLab v3 (1706.05587), sec. 3.2 and 3.2.1.
    """
    if carrier_rate not in ("old", "new"):
        raise ValueError(f"carrier_rate='{carrier_rate}' must be 'old' or 'new'")
    unit_rates = unit_rates or (1,) * len(unit_strides)
    if stem_stride > output_stride:
        raise ValueError(f"output stride {output_stride} is below the stem's stride {stem_stride}")
    current, rate, plan = stem_stride, 1, []
    for stride, unit_rate in zip(unit_strides, unit_rates, strict=True):
        if current == output_stride:
            own_rate = rate
            rate *= stride
            carried = rate if carrier_rate == "new" else own_rate
            plan.append(UnitPlan(1, unit_rate * carried, current, unit_rate * rate, stride, own_rate))
        else:
            current *= stride
            plan.append(UnitPlan(stride, unit_rate, current, unit_rate, stride))
        if current > output_stride:
            raise ValueError(f"strides {tuple(unit_strides)} after a stem of {stem_stride} skip {output_stride}")
    if current != output_stride:
        raise ValueError(f"strides {tuple(unit_strides)} end at stride {current}, short of {output_stride}")
    return tuple(plan)
