"""Reads a pickle as data: what it would construct and call is recorded, and nothing is imported or called.

Python's unpickler executes whatever the file says. This one runs the same instructions on lists, dicts, tuples,
numbers, text, and three classes of its own that represent everything else, so that reading a file has no side effects.
The standard library's `pickletools.genops` decodes the instructions without executing any.

Source: PEPs 307, 3154 and 574; the comments of CPython's Lib/pickletools.py.
"""

from __future__ import annotations

import dataclasses
import pickletools
import warnings
from typing import IO, Any

from deeplab_jax.weights.formats.budget import spend


class Global(str):
    """The dotted name of a class or function that the pickle refers to."""

    __slots__ = ()


@dataclasses.dataclass(eq=False, slots=True)
class Inert:
    """An object that the pickle describes.

    Attributes:
      name: of the class or function that would create it; '' for the result of another call.
      arguments: of that call.
      state: that would be set on the object.
      entries: that would be set on it as on a mapping.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    entries: dict[Any, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False, slots=True)
class Persistent:
    """A reference to something stored outside the pickle."""

    key: Any


def read_pickle(stream: IO[bytes]) -> tuple[Any, list[Persistent]]:
    """The content of a pickle; the stream is left at its end.

    Args:
      stream: its `read(n)` must not allocate more bytes than the file has (so not a buffered file).

    Returns:
      The object and all references in it. Sets appear as lists. Mappings keep only entries whose key is text or a
      number.

    Raises:
      ValueError: if it is not a pickle, or is damaged.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # invalid escapes in the text of protocol 0
            for instruction, argument, _ in pickletools.genops(stream):
                spend()
                machine.run(instruction.name, argument)
        return machine.stack[-1], machine.references
    except (IndexError, KeyError):
        raise ValueError("a pickle that takes what it has not put") from None


# Instructions that push their own argument.
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Machine:
    """The stack, its marks and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.references: list[Persistent] = []

    def run(self, instruction: str, argument: Any) -> None:
        if instruction in _LITERALS:
            self.stack.append(argument)
        elif instruction in _CONSTANTS:
            self.stack.append(_CONSTANTS[instruction])
        elif not (
            self._arrange(instruction, argument) or self._fill(instruction) or self._refer(instruction, argument)
        ):
            raise ValueError(f"a pickle with the instruction {instruction}")

    def _arrange(self, instruction: str, argument: Any) -> bool:
        """Handles marks, memo and tuples; False for any other instruction."""
        match instruction:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                self.stack.append(self.memo[argument])
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "POP" if self.stack:
                self.stack.pop()
            case "POP" | "POP_MARK":
                self._since_mark()
            case "DUP":
                self.stack.append(self.stack[-1])
            case "TUPLE":
                values = self._since_mark()
                self.stack.append(tuple(values))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(self._last(int(instruction[-1])))
            case _:
                return False
        return True

    def _fill(self, instruction: str) -> bool:
        """Handles lists, sets and mappings; False for any other instruction."""
        match instruction:
            case "EMPTY_LIST" | "EMPTY_SET":
                self.stack.append([])
            case "LIST" | "FROZENSET":
                values = self._since_mark()
                self.stack.append(values)
            case "APPEND":
                (value,) = self._last(1)
                _extend(self.stack[-1], [value])
            case "APPENDS" | "ADDITEMS":
                values = self._since_mark()
                _extend(self.stack[-1], values)
            case "EMPTY_DICT":
                self.stack.append({})
            case "DICT":
                entries: dict[Any, Any] = {}
                _update(entries, self._since_mark())
                self.stack.append(entries)
            case "SETITEM":
                pair = self._last(2)
                _update(self.stack[-1], pair)
            case "SETITEMS":
                pairs = self._since_mark()
                _update(self.stack[-1], pairs)
            case _:
                return False
        return True

    def _refer(self, instruction: str, argument: Any) -> bool:
        """Handles what another unpickler would import, call or fetch; False for any other instruction."""
        match instruction:
            case "GLOBAL":
                self.stack.append(Global(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                module, name = self._last(2)
                self.stack.append(Global(f"{_text(module)}.{_text(name)}"))
            case "REDUCE" | "NEWOBJ":
                self._put_inert(*self._last(2))
            case "NEWOBJ_EX":
                factory, arguments, _ = self._last(3)
                self._put_inert(factory, arguments)
            case "INST":
                self._put_inert(Global(argument.replace(" ", ".")), tuple(self._since_mark()))
            case "OBJ":
                factory, *rest = self._since_mark() or [None]
                self._put_inert(factory, tuple(rest))
            case "BUILD":
                (state,) = self._last(1)
                if isinstance(self.stack[-1], Inert):
                    self.stack[-1].state = state
            case "PERSID" | "BINPERSID":
                reference = Persistent(argument if instruction == "PERSID" else self._last(1)[0])
                self.references.append(reference)
                self.stack.append(reference)
            case _:
                return False
        return True

    def _put_inert(self, factory: Any, arguments: Any) -> None:
        name = factory if isinstance(factory, Global) else ""
        self.stack.append(Inert(name, arguments if isinstance(arguments, tuple) else ()))

    def _last(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise IndexError
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def _since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(values)


def _update(target: Any, flat_pairs: list[Any] | tuple[Any, ...]) -> None:
    entries = target.entries if isinstance(target, Inert) else target
    if isinstance(entries, dict):
        # Other keys name no tensor, and hashing a deeply nested one would crash the process.
        pairs = zip(flat_pairs[::2], flat_pairs[1::2], strict=False)
        entries.update((key, value) for key, value in pairs if isinstance(key, str | int))
