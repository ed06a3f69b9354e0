"""Reads the kernels and operations from a compiled program's text, for benchmarks/compile_convolutions.py."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Mapping

from deeplab_jax.hardware.program_text import SHAPE, kernels_of, operands_of, parse_program

_CALLED = re.compile(r"calls=%?([\w.-]+)")
_KIND = re.compile(r'kind=k(\w+)(?:.*?"fusion_backend_config":\{"kind":"(\w+)")?')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_KERNEL_LABELS = re.compile(r"dim_labels=\w+_(\w+)->")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")


def read_kernels(text: str) -> collections.Counter[str]:
    """How often the program starts each kind of kernel: a library's function, 'fusion' with its kind, or an opcode."""
    counts: collections.Counter[str] = collections.Counter()
    for instruction, times, _ in kernels_of(parse_program(text)):
        counts[_kernel_name(instruction)] += times
    return counts


def count_flops(text: str) -> int:
    """Operations of all products: two per multiplication in matrix products, cuDNN's convolutions and fusions.

    Other library calls are not counted.
    """
    program = parse_program(text)
    total = 0
    for instruction, times, types in kernels_of(program):
        inner = _CALLED.search(instruction["rest"])
        if instruction["opcode"] == "fusion" and inner:
            body = program.bodies[inner[1]]
            inner_types = {each["name"]: each["type"] for each in body}
            total += times * sum(_flops(each, inner_types) for each in body)
        else:
            total += times * _flops(instruction, types)
    return total


def _kernel_name(instruction: re.Match[str]) -> str:
    if target := _TARGET.search(instruction["rest"]):
        return target[1]
    if instruction["opcode"] != "fusion":
        return instruction["opcode"]
    kind = _KIND.search(instruction["rest"])
    return f"fusion {kind[2] or kind[1]}" if kind else "fusion"


def _flops(instruction: re.Match[str], types: Mapping[str, str]) -> int:
    operands = [types[name] for name in operands_of(instruction, types)]
    result = math.prod(_dimensions(instruction["type"]))
    if instruction["opcode"] == "multiply":
        return 2 * result if instruction["type"].startswith(("f", "bf")) else 0
    if instruction["opcode"] == "dot":
        contracted = _CONTRACTED.search(instruction["rest"])
        sizes = _dimensions(operands[0])
        return 2 * result * math.prod(sizes[int(axis)] for axis in contracted[1].split(",")) if contracted else 0
    labels, target = _KERNEL_LABELS.search(instruction["rest"]), _TARGET.search(instruction["rest"])
    if not labels or not target or len(operands) < 2:
        return 0
    # The labels are those of the forward convolution, even if its kernel or its input is the result.
    outputs, kernel = instruction["type"], operands[1]
    if "BackwardFilter" in target[1]:
        outputs, kernel = operands[1], instruction["type"]
    elif "BackwardInput" in target[1]:
        outputs = operands[0]
    sizes = _dimensions(kernel)
    return 2 * math.prod(_dimensions(outputs)) * math.prod(sizes) // sizes[labels[1].index("o")]


def _dimensions(type_text: str) -> tuple[int, ...]:
    """The dimensions of an array, or of the first in a tuple."""
    shape = SHAPE.search(type_text)
    return tuple(int(size) for size in shape[2].split(",") if size) if shape else ()
