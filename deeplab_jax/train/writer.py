"""The metrics of a run: workdir/metrics.jsonl, one JSON object per line, and the same for TensorBoard."""

from __future__ import annotations

import errno
import json
import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deeplab_jax.files import whole, write_errors

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FILE = "metrics.jsonl"

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BOARD_BYTES = 2**24  # free space needed to write for TensorBoard, whose thread would die on a full disk


class MetricWriter:
    """Appends metrics; on resume, first drops lines written after the restored step.

    Lines are {"step", "loss", "learning_rate", ...} or {"step", "evaluation": {scores}}; non-finite numbers are written
    as null, which JSON can hold. While the disk is full, lines are kept in memory.
    """

    def __init__(self, workdir: pathlib.Path, *, start_step: int, enabled: bool = True) -> None:
        """Continues the metrics in `workdir` at `start_step`; 0 starts over.

        Args:
          start_step: the restored step.
          enabled: True in one process of the run only.

        Raises:
          UserError: if the file cannot be written.
        """
        self._path, self._enabled = workdir / FILE, enabled
        if not enabled:
            return
        with write_errors(self._path):
            _drop_lines_after(self._path, start_step)
            self._file = self._path.open("ab", buffering=0)
        self._waiting = b""
        self._start_step = start_step
        self._board: SummaryWriter | None = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one point of the training curve."""
        if not self._enabled:
            return
        self._append({"step": step, **{name: _finite(value) for name, value in values.items()}})
        self._write_scalars(step, values, "train")

    def write_evaluation(self, step: int, scores: Mapping[str, Any]) -> None:
        """Writes the scores of an evaluation, without the confusion matrix and the protocol."""
        if not self._enabled:
            return
        kept = {name: value for name, value in scores.items() if name not in ("confusion", "protocol")}
        self._append({"step": step, "evaluation": kept})
        self._write_scalars(step, {k: v for k, v in kept.items() if isinstance(v, float)}, "evaluation")
        self._write_scalars(step, {k: v for k, v in kept["iou_per_class"].items() if v is not None}, "iou")

    def close(self) -> None:
        if not self._enabled:
            return
        if self._board:
            self._board.close()
        with self._file, write_errors(self._path):
            if self._waiting and not self._write_waiting():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write_scalars(self, step: int, values: Mapping[str, float], group: str) -> None:
        with write_errors(self._path):
            if self._waiting or shutil.disk_usage(self._path.parent).free < _BOARD_BYTES:
                return
        board = self._board = self._board or self._open_board()
        for name, value in values.items():
            if math.isfinite(value):
                board.add_scalar(f"{group}/{name}", value, step)

    def _open_board(self) -> SummaryWriter:
        """Opens it lazily: its library imports torch if installed, for a second that would delay the first step."""
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self._path.parent / "tensorboard"), purge_step=self._start_step + 1)

    def _append(self, line: Mapping[str, Any]) -> None:
        self._waiting += json.dumps(line, allow_nan=False).encode() + b"\n"
        self._write_waiting()

    def _write_waiting(self) -> bool:
        """Whether everything was written; after a partial write, the rest of the line follows next time."""
        with write_errors(self._path):
            try:
                while self._waiting:
                    self._waiting = self._waiting[self._file.write(self._waiting) :]
            except OSError as error:
                if error.errno not in _FULL:
                    raise
        return not self._waiting


def _drop_lines_after(path: pathlib.Path, step: int) -> None:
    """A killed run may be ahead of its last checkpoint, and its last line may be cut off."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
    with whole(path) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in kept if step > 0))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # cut off, or not written by us
        return math.inf


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
