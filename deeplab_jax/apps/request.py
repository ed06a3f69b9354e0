"""The interface between the command line and a mode: its flags, its needs, and the request it runs on.

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
    """A flag of a mode; its value has the type of the default, and a tuple takes several words."""

    name: str
    default: str | int | tuple[str, ...]
    help: str
    suffices: bool = False  # if given, the mode needs neither --config nor --workdir


class Needs(enum.IntEnum):
    """How a mode needs the config prepared; each level includes the previous ones."""

    CONFIG = 0  # as given on the command line
    NETWORK = 1  # with the network imported into the workdir, if any; prints warnings about lost accuracy
    WEIGHTS = 2  # checked to match the network that the workdir's weights were trained as


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """The input of a mode."""

    config: Config
    workdir: pathlib.Path
    flags: Mapping[str, Any]  # the mode's own, by name
    given: frozenset[str] = frozenset({"config", "workdir"})  # the common flags that were given
    overrides: frozenset[str] = frozenset()  # dotted paths of the config that were given


@runtime_checkable
class Mode(Protocol):
    """A module of apps/modes."""

    FLAGS: tuple[Flag, ...]
    NEEDS: Needs

    @staticmethod
    def run(request: Request) -> int:
        """Returns the exit status."""


CHECKPOINT = Flag("checkpoint", "", "checkpoint to use instead of the workdir's best")
PROCESSES = (
    Flag("coordinator", "", "with several processes: HOST:PORT of process 0; default: from the cluster's environment"),
    Flag("num_processes", 0, "number of processes; goes with --coordinator"),
    Flag("process_id", -1, "index of this process, from 0; goes with --coordinator"),
)
