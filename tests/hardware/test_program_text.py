"""Kernels and operations read off a GPU program's text: library calls, products in fusions, loops."""

from __future__ import annotations

import pytest

from benchmarks.program_kernels import count_flops, read_kernels
from deeplab_jax.hardware.program_text import count_bytes

# As XLA for GPU prints them, but for layouts and metadata: a product inside a fusion, one in a loop that runs thrice,
# and the three calls of cuDNN, whose labels are always those of the forward convolution.
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%gemm_fusion_dot_computation (parameter_0: bf16[6,8], parameter_1: bf16[8,5]) -> bf16[6,5] {
  %parameter_0 = bf16[6,8]{1,0} parameter(0)
  %parameter_1 = bf16[8,5]{1,0} parameter(1)
  ROOT %dot.9 = bf16[6,5]{1,0} dot(%parameter_0, %parameter_1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_multiply (param_0: f32[2,3]) -> f32[2,3] {
  %param_0 = f32[2,3]{1,0} parameter(0)
  %index = s32[2,3]{1,0} iota(), iota_dimension=0
  %offset = s32[2,3]{1,0} multiply(%index, %index)
  ROOT %multiply.1 = f32[2,3]{1,0} multiply(%param_0, %param_0)
}

%body (carry: (s32[], f32[2,3])) -> (s32[], f32[2,3]) {
  %carry = (s32[], f32[2,3]{1,0}) parameter(0)
  %at = s32[] get-tuple-element(%carry), index=0
  %x.1 = f32[2,3]{1,0} get-tuple-element(%carry), index=1
  %loop_fusion = f32[2,3]{1,0} fusion(%x.1), kind=kLoop, calls=%fused_multiply
  ROOT %tuple.1 = (s32[], f32[2,3]{1,0}) tuple(%at, %loop_fusion)
}

ENTRY %main (a: bf16[6,8], b: bf16[8,5], x: bf16[2,9,9,4], k: bf16[7,3,3,4], dy: bf16[2,5,5,7], in: (s32[], f32[2,3])) -> bf16[6,5] {
  %a = bf16[6,8]{1,0} parameter(0)
  %b = bf16[8,5]{1,0} parameter(1)
  %x = bf16[2,9,9,4]{3,2,1,0} parameter(2)
  %k = bf16[7,3,3,4]{3,2,1,0} parameter(3)
  %dy = bf16[2,5,5,7]{3,2,1,0} parameter(4)
  %in = (s32[], f32[2,3]{1,0}) parameter(5)
  %conv = (bf16[2,5,5,7]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %filter = (bf16[7,3,3,4]{3,2,1,0}, u8[0]{0}) custom-call(%x, %dy), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %input = (bf16[2,9,9,4]{3,2,1,0}, u8[0]{0}) custom-call(%dy, %k), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  %while.1 = (s32[], f32[2,3]{1,0}) while(%in), condition=%test, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %kernel.1 = f32[2,3]{1,0} custom-call(%a), custom_call_target="__gpu$xla.gpu.triton"
  ROOT %gemm_fusion_dot = bf16[6,5]{1,0} fusion(%a, %b), kind=kCustom, calls=%gemm_fusion_dot_computation, backend_config={"fusion_backend_config":{"kind":"__triton_gemm"}}
}
"""  # noqa: E501


def test_kernels_are_named_by_their_library_or_their_fusion_and_counted_as_often_as_they_run():
    assert read_kernels(PROGRAM) == {
        "__cudnn$convForward": 1,
        "__cudnn$convBackwardFilter": 1,
        "__cudnn$convBackwardInput": 1,
        "__gpu$xla.gpu.triton": 1,
        "fusion Loop": 3,
        "fusion __triton_gemm": 1,
    }


def test_operations_are_those_of_products_in_calls_fusions_and_loops():
    convolution = 2 * (2 * 5 * 5 * 7) * (3 * 3 * 4)  # the same work in all three directions
    multiplied = 2 * (2 * 3)  # of floats; indices are no work
    assert count_flops(PROGRAM) == 3 * convolution + 3 * multiplied + 2 * (6 * 8 * 5)


def test_groups_are_not_multiplied_with_each_other():
    depthwise = PROGRAM.replace("bf16[7,3,3,4]", "bf16[4,3,3,1]").replace("bf16[2,5,5,7]", "bf16[2,5,5,4]")
    convolution = 2 * (2 * 5 * 5 * 4) * (3 * 3)
    assert count_flops(depthwise) == 3 * convolution + 3 * 12 + 480


@pytest.mark.parametrize(("call", "moved"), [("conv", 2 * (648 + 252 + 350)), ("gemm_fusion_dot", 2 * (48 + 40 + 30))])
def test_bytes_of_a_kernel_are_those_of_its_operands_and_results(call, moved):
    without = "\n".join(line for line in PROGRAM.splitlines() if f"%{call} =" not in line)
    assert count_bytes(PROGRAM) - count_bytes(without) == moved
