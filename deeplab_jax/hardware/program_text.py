"""What a compiled program does, read off its text: its collectives, its convolutions, and the bytes that it moves.

XLA prints a program as one line for each instruction, `%name = TYPE opcode(operands), attributes`.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)
_COLLECTIVE = re.compile(rf" = (?P<type>.*?) (?P<kind>{'|'.join(_COLLECTIVES)})(?P<start>-start)?\(")
_CONVOLUTION = re.compile(
    r" = (?P<type>.*?) (?:convolution|custom-call)\(.*?window=\{(?P<window>[^}]*)\}"
    r"(?:.*?custom_call_target=\"(?P<target>[^\"]*)\")?"
)
_SHAPE = re.compile(r"\b(pred|bf16|[fsuc]\d+(?:e\dm\d\w*)?)\[([\d,]*)\]")
_GROUPS = re.compile(r"feature_group_count=(\d+)")
_BYTES = {"pred": 1, "bf16": 2}

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(
    r"^ +(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>.*?) (?P<opcode>[a-z][a-z0-9-]*)\((?P<rest>.*)$"
)
_OPERAND = re.compile(r"%([\w.-]+)")
_BODY = re.compile(r"body=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# What names memory without touching it.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier"}


@dataclasses.dataclass(frozen=True, slots=True)
class Traffic:
    """The collectives of one kind: how many instructions, and the bytes of their results on one device."""

    count: int
    bytes: int


class Convolution(NamedTuple):
    """A convolution as it is compiled.

    Attributes:
      call: the library's function, e.g. '__cudnn$convForward'; 'convolution' where XLA does it itself.
      window: (height, width) of the kernel.
      stride, dilation, base_dilation: of the output, of the kernel, of the input; (rows, columns).
      groups: 1 for a dense one.
      result: shape of the result, as XLA writes it.
    """

    call: str
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    base_dilation: tuple[int, ...]
    groups: int
    result: str


def read_collectives(text: str) -> Mapping[str, Traffic]:
    """Kind -> its traffic. What stands in a loop is counted once, however often it runs."""
    found: dict[str, Traffic] = {}
    for match in _COLLECTIVE.finditer(text):
        sizes = [_shape_bytes(*shape) for shape in _SHAPE.findall(match["type"])]
        if match["start"] and match["kind"] != "all-reduce":
            # The started form gives (operands, results, ...): the second half of what is as large as the operands.
            sizes = sizes[len(sizes) // 2 :] if match["kind"] == "all-gather" else sizes[:1]
        before = found.get(match["kind"], Traffic(0, 0))
        found[match["kind"]] = Traffic(before.count + 1, before.bytes + sum(sizes))
    return found


def read_convolutions(text: str) -> collections.Counter[Convolution]:
    """How often each convolution stands in the program."""
    return collections.Counter(
        _convolution(match, text[match.start() : text.find("\n", match.start())])
        for match in _CONVOLUTION.finditer(text)
    )


def count_bytes(text: str) -> int:
    """Bytes that the program's kernels read and write: the operands and results of each, fused ones counted once.

    More than a device moves, where a kernel reads a part of an operand or finds it in a cache. A loop counts as often
    as it is known to run.
    """
    bodies: dict[str, list[re.Match[str]]] = {}
    name, entry = "", ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            name = header[1]
            entry = name if line.startswith("ENTRY") else entry
            bodies[name] = []
        elif instruction := _INSTRUCTION.match(line):
            bodies[name].append(instruction)
    return _count_bytes(entry, bodies)


def _count_bytes(name: str, bodies: Mapping[str, list[re.Match[str]]]) -> int:
    total, sizes = 0, {}
    for instruction in bodies[name]:
        size = sum(_shape_bytes(*shape) for shape in _SHAPE.findall(instruction["type"]))
        sizes[instruction["name"]] = size
        opcode, rest = instruction["opcode"], instruction["rest"]
        if opcode == "while":
            trips, body = _TRIPS.search(rest), _BODY.search(rest)
            total += _count_bytes(body[1], bodies) * (int(trips[1]) if trips else 1) if body else 0
        elif opcode not in _FREE and not opcode.endswith("-done"):
            operands = set(_OPERAND.findall(rest[: rest.index(")")]))
            total += size + sum(sizes.get(operand, 0) for operand in operands)
    return total


def _convolution(match: re.Match[str], line: str) -> Convolution:
    window = dict(item.split("=") for item in match["window"].split())
    size = _numbers(window.get("size", ""))
    groups = _GROUPS.search(line)
    result = _SHAPE.search(match["type"])
    stride, dilation, base_dilation = (
        _numbers(window.get(name, "")) or (1,) * len(size) for name in ("stride", "rhs_dilate", "lhs_dilate")
    )
    return Convolution(
        match["target"] or "convolution",
        size,
        stride,
        dilation,
        base_dilation,
        int(groups[1]) if groups else 1,
        result[0] if result else "",
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("x")) if text else ()


def _shape_bytes(dtype: str, sizes: str) -> int:
    width = _BYTES.get(dtype) or max(int(re.sub(r"\D.*", "", dtype[1:])) // 8, 1)
    return width * math.prod(int(size) for size in sizes.split(",") if size)
