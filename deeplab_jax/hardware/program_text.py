"""Reads a compiled program's text: its kernels, convolutions, collectives and bytes.

XLA prints a program with one line per instruction, `%name = TYPE opcode(operands), attributes`.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
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
SHAPE = re.compile(r"\b(pred|bf16|[fsuc]\d+(?:e\dm\d\w*)?)\[([\d,]*)\]")
_GROUPS = re.compile(r"feature_group_count=(\d+)")
_BYTES = {"pred": 1, "bf16": 2}

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(
    r"^ +(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>.*?) (?P<opcode>[a-z][a-z0-9-]*)\((?P<rest>.*)$"
)
_OPERAND = re.compile(r"%([\w.-]+)")
_BODY = re.compile(r"body=%?([\w.-]+)")


_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# Opcodes that refer to memory without accessing it.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier"}


@dataclasses.dataclass(frozen=True, slots=True)
class Traffic:
    """The collectives of one kind: the number of instructions, and the bytes of their results on one device."""

    count: int
    bytes: int


class Convolution(NamedTuple):
    """A compiled convolution.

    Attributes:
      call: the library's function, e.g. '__cudnn$convForward'; 'convolution' if XLA computes it itself.
      window: (height, width) of the kernel.
      stride, dilation, base_dilation: of the output, of the kernel, of the input; (rows, columns).
      groups: 1 for a dense one.
      result: shape of the result in XLA's notation.
    """

    call: str
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    base_dilation: tuple[int, ...]
    groups: int
    result: str


def read_collectives(text: str) -> Mapping[str, Traffic]:
    """Kind -> its traffic. Instructions in a loop are counted once, however often it runs."""
    found: dict[str, Traffic] = {}
    for match in _COLLECTIVE.finditer(text):
        sizes = [_shape_bytes(*shape) for shape in SHAPE.findall(match["type"])]
        if match["start"] and match["kind"] != "all-reduce":
            # Asynchronous starts return (operands, results, ...): keep the results, or one entry if sizes are equal.
            sizes = sizes[len(sizes) // 2 :] if match["kind"] == "all-gather" else sizes[:1]
        before = found.get(match["kind"], Traffic(0, 0))
        found[match["kind"]] = Traffic(before.count + 1, before.bytes + sum(sizes))
    return found


def read_convolutions(text: str) -> collections.Counter[Convolution]:
    """How often each convolution occurs in the program."""
    return collections.Counter(
        _convolution(match, text[match.start() : text.find("\n", match.start())])
        for match in _CONVOLUTION.finditer(text)
    )


def count_bytes(text: str) -> int:
    """Bytes that the program's kernels read and write: the operands and results of each fused kernel, counted once.

    An overestimate if a kernel reads only part of an operand or finds it in a cache; an underestimate if it reads an
    operand repeatedly. A loop counts as often as it is known to run.
    """
    total = 0
    for instruction, times, types in kernels_of(parse_program(text)):
        names = {instruction["name"], *operands_of(instruction, types)}
        total += times * sum(_type_bytes(types[name]) for name in names)
    return total


class ParsedProgram(NamedTuple):
    """The instructions of each computation; the program starts at `entry`."""

    entry: str
    bodies: Mapping[str, list[re.Match[str]]]


def parse_program(text: str) -> ParsedProgram:
    """A program's text, split into its instructions."""
    bodies: dict[str, list[re.Match[str]]] = {}
    name, entry = "", ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            name = header[1]
            entry = name if line.startswith("ENTRY") else entry
            bodies[name] = []
        elif instruction := _INSTRUCTION.match(line):
            bodies[name].append(instruction)
    return ParsedProgram(entry, bodies)


def kernels_of(
    program: ParsedProgram, name: str = "", times: int = 1
) -> Iterator[tuple[re.Match[str], int, dict[str, str]]]:
    """The instructions that access memory, how often each runs, and the types of the names in its computation."""
    body = program.bodies[name or program.entry]
    types = {instruction["name"]: instruction["type"] for instruction in body}
    for instruction in body:
        opcode, rest = instruction["opcode"], instruction["rest"]
        if opcode == "while":
            trips, inner = _TRIPS.search(rest), _BODY.search(rest)
            if inner:
                yield from kernels_of(program, inner[1], times * (int(trips[1]) if trips else 1))
        elif opcode not in _FREE and not opcode.endswith("-done"):
            yield instruction, times, types


def operands_of(instruction: re.Match[str], types: Mapping[str, str]) -> list[str]:
    """The names of an instruction's operands."""
    rest = instruction["rest"]
    return [name for name in _OPERAND.findall(rest[: rest.index(")")]) if name in types]


def _convolution(match: re.Match[str], line: str) -> Convolution:
    window = dict(item.split("=") for item in match["window"].split())
    size = _numbers(window.get("size", ""))
    groups = _GROUPS.search(line)
    result = SHAPE.search(match["type"])
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


def _type_bytes(type_text: str) -> int:
    return sum(_shape_bytes(*shape) for shape in SHAPE.findall(type_text))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("x")) if text else ()


def _shape_bytes(dtype: str, sizes: str) -> int:
    width = _BYTES.get(dtype) or max(int(re.sub(r"\D.*", "", dtype[1:])) // 8, 1)
    return width * math.prod(int(size) for size in sizes.split(",") if size)
