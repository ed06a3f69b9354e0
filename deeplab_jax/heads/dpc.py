"""The dense prediction cell, a multi-scale module found by search, in place of ASPP (1809.04184, sec. 3.1)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.heads.aspp import RATES_OUTPUT_STRIDE, ASPPFields, common_fields
from deeplab_jax.heads.v3plus import V3PlusHead
from deeplab_jax.nn.layers import ConvNorm, SeparableConvNorm
from deeplab_jax.nn.options import LayerOptions
from deeplab_jax.nn.plan import scaled_rate
from deeplab_jax.ops.pooling import average_pool
from deeplab_jax.ops.resize import resize_bilinear

_OPERATIONS = ("conv1x1", "conv3x3", "pyramid_pooling")


class Branch(NamedTuple):
    """One operation of a cell."""

    operation: str  # 'conv1x1'; 'conv3x3', atrous and separable; 'pyramid_pooling'
    size: tuple[int, int]  # (vertical, horizontal) rate at output stride 16, or number of pooling cells
    source: int  # the branch it reads; -1: the features


# The best of 28 000 cells tried on Cityscapes: dense_prediction_cell_branch5_top1_cityscapes.json of TF deeplab.
TOP1_CITYSCAPES = (
    Branch("conv3x3", (1, 6), -1),
    Branch("conv3x3", (18, 15), 0),
    Branch("conv3x3", (6, 3), 1),
    Branch("conv3x3", (1, 1), 0),
    Branch("conv3x3", (6, 21), 0),
)


class DPC(nn.Module):
    """Branches that read the features or an earlier branch, all concatenated and projected.

    Attributes:
      output_stride: of the input features; rates scale inversely with it, as in ASPP; at 32 the rates of
        `TOP1_CITYSCAPES` are not integers.
      channels: of each branch and of the result.
      dropout: of the concatenated branches, in training; ASPP's comes after the projection.

    Raises:
      ValueError: for an unknown operation, a branch that does not read an earlier one, or a rate that is not an integer
        at the output stride.

    Source: 1809.04184, sec. 3.1; pooling windows and dropout as in TF deeplab.
    """

    output_stride: int
    cell: tuple[Branch, ...] = TOP1_CITYSCAPES
    channels: int = 256
    dropout: float = 0.1
    epsilon: float = 1e-5
    align_corners: bool = True
    options: LayerOptions = LayerOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        for branch_id, (operation, _, source) in enumerate(self.cell):
            if operation not in _OPERATIONS:
                known = ", ".join(_OPERATIONS)
                raise ValueError(f"cell: branch {branch_id} has the operation '{operation}'; there are {known}")
            if not -1 <= source < branch_id:
                raise ValueError(f"cell: branch {branch_id} reads branch {source}, which is not before it")

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        branches: list[Array] = []
        for branch_id, (operation, size, source) in enumerate(self.cell):
            y = x if source < 0 else branches[source]
            branches.append(self._branch(y, operation, size, f"branch{branch_id}", train=train))
        y = jnp.concatenate(branches, axis=-1)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return ConvNorm(self.channels, epsilon=self.epsilon, options=self.options, name="projection")(y, train=train)

    def _branch(
        self, x: Float[Array, "b h w c"], operation: str, size: tuple[int, int], name: str, *, train: bool
    ) -> Float[Array, "b h w d"]:
        shared: dict[str, Any] = {"epsilon": self.epsilon, "options": self.options, "name": name}
        if operation == "conv3x3":
            scale = functools.partial(scaled_rate, given_at=RATES_OUTPUT_STRIDE, output_stride=self.output_stride)
            vertical, horizontal = (scale(rate) for rate in size)
            return SeparableConvNorm(self.channels, rate=(vertical, horizontal), **shared)(x, train=train)
        conv = ConvNorm(self.channels, **shared)
        if operation == "conv1x1":
            return conv(x, train=train)
        grid = x.shape[1], x.shape[2]
        # Windows of one grid cell, moved in steps of one, as in TF deeplab; a 1 x 1 grid pools the whole map.
        window = (grid[0] - 1) // size[0] + 1, (grid[1] - 1) // size[1] + 1
        return resize_bilinear(conv(average_pool(x, window), train=train), grid, align_corners=self.align_corners)


class DPCHead(V3PlusHead):
    """The cell in v3+'s head, with a separable decoder.

    Attributes: `cell`, as in `DPC`; `aspp_channels`, of the cell; others as for `V3PlusHead`.

    Raises:
      ValueError: for a field of ASPP that the cell has no use for.
    """

    cell: tuple[Branch, ...] = TOP1_CITYSCAPES
    separable: bool = dataclasses.field(default=True, kw_only=True)
    atrous_rates: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)  # the cell has its own

    def __post_init__(self) -> None:
        super().__post_init__()
        used = {field.name for field in dataclasses.fields(DPC)} | {"separable", "inner_norm"}
        unused = {field.name for field in dataclasses.fields(ASPPFields)} - used
        for field in dataclasses.fields(self):
            if field.name in unused and getattr(self, field.name) != field.default:
                raise ValueError(f"{field.name}={getattr(self, field.name)!r}: of ASPP; DPC computes its `cell`")

    def _pyramid(self, output_stride: int) -> nn.Module:
        return DPC(output_stride=output_stride, channels=self.aspp_channels, **common_fields(self, DPC), name="dpc")


dpc = DPCHead  # spelled as configs spell it
