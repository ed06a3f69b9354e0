"""Which of a run's checkpoints are intact: damaged ones are named and never parsed, and training sets them aside."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable
from typing import Literal

from deeplab_jax.train.manifest import find_damage
from deeplab_jax.types import UserError

FOLDER = "checkpoints"  # inside a workdir
SET_ASIDE = "damaged_checkpoints"  # beside it

Say = Callable[[str], None]


def numbered(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """Step -> checkpoint, the newest first; whether they are intact is not asked."""
    found = [path for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()]
    return {int(path.name): path for path in sorted(found, key=lambda path: -int(path.name))}


def set_aside_damaged(directory: pathlib.Path, say: Say) -> None:
    """Moves the damaged checkpoints of a run out of the way, so that it continues from the newest intact one.

    Args:
      say: receives one line for each.

    Raises:
      UserError: if none is intact; nothing is moved then.
    """
    checkpoints = numbered(directory)
    damaged = {step: reason for step, path in checkpoints.items() if (reason := find_damage(path))}
    intact = [step for step in checkpoints if step not in damaged]
    if damaged and not intact:
        raise UserError(
            f"{directory}: every checkpoint is damaged ({_list(damaged)}); restore the folder from a backup, or move "
            "it away to start over"
        )
    for step, reason in damaged.items():
        place = _free_name(directory.parent / SET_ASIDE / str(step))
        place.parent.mkdir(exist_ok=True)
        checkpoints[step].rename(place)
        say(f"warning: {checkpoints[step]}: is damaged ({reason}), moved to {place}; the newest intact is {intact[0]}")


def find_intact(directory: pathlib.Path, *, prefer: Literal["best", "latest"], say: Say) -> pathlib.Path | None:
    """The best or the latest intact checkpoint; None if there is no checkpoint at all. Nothing is moved.

    Args:
      prefer: the latest is also taken if none was evaluated.
      say: receives one line if damaged checkpoints would have been preferred.

    Raises:
      UserError: if every checkpoint is damaged.
    """
    checkpoints = list(numbered(directory).values())
    if prefer == "best":
        checkpoints.sort(key=_mean_iou, reverse=True)  # stable: the newest of several first
    damaged: dict[int, str] = {}
    for path in checkpoints:
        reason = find_damage(path)
        if reason is None:
            if damaged:
                say(f"warning: {directory}: damaged is {_list(damaged)}; {path.name} is used instead")
            return path
        damaged[int(path.name)] = reason
    if damaged:
        raise UserError(f"{directory}: every checkpoint is damaged ({_list(damaged)}); restore it from a backup")
    return None


def require_intact(path: pathlib.Path) -> pathlib.Path:
    """Returns a checkpoint; raises UserError if it is damaged."""
    reason = find_damage(path)
    if reason is None:
        return path
    others = ", ".join(str(step) for step in numbered(path.parent) if str(step) != path.name)
    raise UserError(f"{path}: is damaged ({reason}); {f'beside it are {others}' if others else 'take another run'}")


def _mean_iou(path: pathlib.Path) -> float:
    try:
        return float(json.loads((path / "metrics" / "metrics").read_text())["mean_iou"])
    except (OSError, ValueError, KeyError, TypeError):  # not evaluated, or damaged, which is found later
        return -math.inf


def _list(damaged: dict[int, str]) -> str:
    return "; ".join(f"{step}: {reason}" for step, reason in damaged.items())


def _free_name(path: pathlib.Path) -> pathlib.Path:
    names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(2, 1000))]
    return next(name for name in names if not name.exists())
