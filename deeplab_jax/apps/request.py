"""What the command line asks of a mode, and what a mode says of itself: its flags, and what it needs done first.

A module of apps/modes has `FLAGS`, `NEEDS` and `run(request) -> exit status`.
"""

from __future__ import annotations

import dataclasses
import enum
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from deeplab_jax.config import Config


class Flag(NamedTuple):
    """A flag of a mode; a value has the type of the default, a tuple takes several words."""

    name: str
    default: str | int | tuple[str, ...]
    help: str
    suffices: bool = False  # where it is given, the mode does without --config and --workdir


class Needs(enum.IntEnum):
    """What a mode wants of the config; each includes those before it."""

    CONFIG = 0  # as the command line says
    NETWORK = 1  # with the network that was imported into the workdir, if one was; what costs accuracy is told
    WEIGHTS = 2  # and that network is the one that the workdir's weights were trained as


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What a mode is asked for."""

    config: Config
    workdir: pathlib.Path
    flags: Mapping[str, Any]  # those of the mode, by name
    given: frozenset[str] = frozenset({"config", "workdir"})  # which flags of the command itself there were


@runtime_checkable
class Mode(Protocol):
    """A module of apps/modes."""

    FLAGS: tuple[Flag, ...]
    NEEDS: Needs

    @staticmethod
    def run(request: Request) -> int:
        """Returns the exit status."""


CHECKPOINT = Flag("checkpoint", "", "another checkpoint than the workdir's best")
PROCESSES = (
    Flag("coordinator", "", "in several processes: HOST:PORT of process 0; default: as the cluster says"),
    Flag("num_processes", 0, "how many processes there are; goes with --coordinator"),
    Flag("process_id", -1, "which of them this is, from 0; goes with --coordinator"),
)
