"""Checkpoints of a run: saved in the background, whole or not at all; the newest and the best are kept.

One checkpoint is a folder `checkpoints/STEP` with the items state, data (the loader's position), config, scores
(where the step was evaluated) and metrics (mean IoU, by which the best is found), and a manifest by which damage is
found (see train/manifest.py).
"""

from __future__ import annotations

import contextlib
import math
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from deeplab_jax.train import manifest
from deeplab_jax.train.checkpoint_errors import check_finite, check_same_network, disk_reason
from deeplab_jax.train.intact import FOLDER, Say, find_intact, require_intact, set_aside_damaged
from deeplab_jax.train.state import TrainState
from deeplab_jax.types import UserError, Variables


class _NoRoomError(UserError):
    """The disk is too full; detected before anything is written, by all processes alike."""


class Checkpointer:
    """The checkpoints of one run; closing it (or leaving its `with`) waits for the last save."""

    def __init__(self, directory: pathlib.Path, *, keep: int, config: Mapping[str, Any]) -> None:
        """Opens `directory`, creating it if necessary; removes leftovers of saves, moves damaged checkpoints aside.

        Args:
          keep: number of most recent checkpoints to keep, in addition to the best one.
          config: plain nested dicts, saved with each checkpoint.

        Raises:
          UserError: if the directory cannot be written, or all its checkpoints are damaged.
        """
        self._directory = directory.absolute()
        self._config, self._keep = dict(config), keep
        with self._user_errors("open"):
            self._directory.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                set_aside_damaged(self._directory, _print)
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("damaged checkpoints are aside")
            self._manager = _open_manager(self._directory, keep=keep)

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1:
            return  # another process may be gone, and a save would wait for it forever
        try:
            self.close()
        except UserError:
            if error is None:  # otherwise the first error is the one to report
                raise

    @property
    def latest_step(self) -> int | None:
        """Step of the latest complete checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest mean IoU; None if none is scored."""
        return self._manager.best_step()

    def is_best(self, scores: Mapping[str, Any]) -> bool:
        """Whether no checkpoint has a higher mean IoU."""
        best = self.best_step
        known = self._manager.metrics(best) if best is not None else None
        return known is None or _rank(scores) >= _rank(known)

    def save(
        self,
        step: int,
        state: TrainState,
        *,
        data: Mapping[str, Any],
        scores: Mapping[str, Any] | None,
        required: bool = True,
    ) -> str | None:
        """Copies the state to the host and returns; the write happens in the background.

        A step that is already saved is left as it is. If the disk is full, older checkpoints are deleted first, except
        the latest and the best.

        Args:
          data: the loader's position.
          scores: of this state, if it was evaluated.
          required: if False, a failed write is no error, since there will be another save.

        Returns:
          None; or, if the save is not required, why this state or the previous one could not be saved.

        Raises:
          UserError: if the state is not finite, or this save or the previous one failed for lack of space or
            permission.
        """
        check_finite(state.variables, f"cannot save step {step}", self.latest_step)
        refusal: UserError | None = None
        while True:
            try:
                self._save(step, state, data, scores)
                return str(refusal) if refusal else None
            except UserError as error:
                refusal = error
            if self._recover(refusal):
                continue
            if required:
                raise refusal
            return str(refusal)

    def _save(self, step: int, state: TrainState, data: Mapping[str, Any], scores: Mapping[str, Any] | None) -> None:
        if self.latest_step is not None and step <= self.latest_step:
            return  # Orbax would skip it silently
        items = {
            "state": ocp.args.PyTreeSave(state),
            "data": ocp.args.JsonSave(dict(data)),
            "config": ocp.args.JsonSave(self._config),
        }
        if scores is not None:
            items["scores"] = ocp.args.JsonSave(dict(scores))
        metrics = {"mean_iou": scores["mean_iou"]} if scores and scores["mean_iou"] is not None else None
        self._make_room(state)
        with self._user_errors(f"save step {step} in"):
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, target: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The latest checkpoint: (state, data position).

        Args:
          target: shapes, dtypes and shardings, from `abstract_train_state`.

        Raises:
          UserError: if it holds a different network; names the first tensor that differs.
        """
        step = self.latest_step
        if step is None:
            raise UserError(f"no checkpoint in {self._directory}: train first, or give another --workdir")
        saved = self._manager.item_metadata(step)["state"].tree
        have = {"params": saved["params"], "batch_stats": saved["batch_stats"]}
        check_same_network(have, target.variables, f"{self._directory / str(step)}")
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=_restore_args(target), data=ocp.args.JsonRestore())
        )
        return restored["state"], restored["data"]

    def wait(self) -> None:
        """Waits for the save in progress; raises UserError if it failed."""
        with self._user_errors("save in"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the save in progress and releases the threads; raises UserError if the save failed."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # wait() has already reported it
                self._manager.close()

    def _make_room(self, state: TrainState) -> None:
        """Frees disk space before saving: Orbax's background threads fail noisily on a full disk."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if (free := self._free_bytes()) >= needed:
            return
        self.wait()  # the previous save may still be in progress, and what it replaces not yet deleted
        while (free := self._free_bytes()) < needed and self._drop_oldest():
            pass
        if free < needed:
            raise _NoRoomError(
                f"cannot save in {self._directory}: no space left on device, {needed / 1e6:.1f} MB needed, "
                f"{free / 1e6:.1f} MB free; make room or choose another --workdir (earlier checkpoints are intact)"
            )

    def _drop_oldest(self) -> bool:
        """Deletes the oldest checkpoint that is neither the latest nor the best; False if there is none."""
        spared = {self._manager.latest_step(), self._manager.best_step()}
        others = sorted(set(self._manager.all_steps()) - spared)
        if others:
            self._manager.delete(others[0])
        return bool(others)

    def _free_bytes(self) -> int:
        """Free disk space as process 0 sees it: all processes must reach the same decision."""
        with self._user_errors("save in"):
            free = shutil.disk_usage(self._directory).free
        if jax.process_count() == 1:
            return free
        return int(multihost_utils.broadcast_one_to_all(np.asarray(free // 2**20, np.int32))) * 2**20

    def _recover(self, refusal: UserError) -> bool:
        """After a failed save, removes its leftovers and the oldest checkpoint; False if there is nothing to delete."""
        if jax.process_count() > 1:
            if not isinstance(refusal, _NoRoomError):
                raise refusal  # the other processes may have seen no error
            return False
        with contextlib.suppress(Exception):  # the background failure is raised again here
            self._manager.close()
        self._manager = _open_manager(self._directory, keep=self._keep)
        return self._drop_oldest()

    @contextlib.contextmanager
    def _user_errors(self, action: str) -> Iterator[None]:
        """Turns disk errors, whichever library raised them, into one-line user errors."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = disk_reason(error)
            if reason is None:
                raise
            raise UserError(
                f"cannot {action} {self._directory}: {reason}; "
                "make room or choose another --workdir (earlier checkpoints are intact)"
            ) from error


def restore_variables(
    path: pathlib.Path,
    target: Variables | None = None,
    *,
    prefer: Literal["best", "latest"] = "best",
    say: Say | None = None,
) -> dict[str, Any]:
    """The variables of a checkpoint, {'params', 'batch_stats'}: their moving average if one was kept.

    Args:
      path: a workdir, its checkpoint folder, or a single checkpoint in it.
      target: shapes, dtypes and shardings of the variables, from `abstract_variables`; None: whatever was saved, on
        the host's first device.
      prefer: which of several checkpoints; the latest if none was evaluated. Damaged ones are passed over.
      say: receives one line if a damaged checkpoint was passed over; None: it is printed to stderr.

    Raises:
      UserError: if there is no intact checkpoint, or it holds a different network.
    """
    folder = find_checkpoint(path.absolute(), prefer, say)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        saved = reader.metadata(folder / "state").item_metadata.tree
        averaged = bool(saved.get("ema"))
        network = saved["ema"] if averaged else saved
        source = network if target is None else target
        wanted = {name: source[name] for name in ("params", "batch_stats") if source.get(name)}
        if target is None:
            wanted = jax.tree.map(_on_first_device, wanted)
        check_same_network(network, wanted, str(folder))
        item = {"ema": wanted} if averaged else wanted
        restored = reader.restore(folder / "state", _restore_args(item, partial=True))
        return restored["ema"] if averaged else restored


def _on_first_device(leaf: Any) -> jax.ShapeDtypeStruct:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)


def _open_manager(directory: pathlib.Path, *, keep: int) -> ocp.CheckpointManager:
    def write_manifest() -> None:
        """Called in the background once all files of a save are complete, before it is given its name."""
        for folder in directory.glob("*.orbax-checkpoint-tmp"):
            manifest.write_manifest(folder)

    handlers = {name: ocp.JsonCheckpointHandler() for name in ("data", "config", "scores")}
    newest = checkpoint_managers.LatestN(keep)
    # Not `max_to_keep` with `best_fn`: together they delete the latest step unless it is the best.
    best = checkpoint_managers.BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False)
    return ocp.CheckpointManager(
        directory,
        item_handlers={"state": ocp.PyTreeCheckpointHandler(), **handlers},
        options=ocp.CheckpointManagerOptions(
            best_fn=_rank,
            preservation_policy=checkpoint_managers.AnyPreservationPolicy([newest, best]),
            cleanup_tmp_directories=True,
            create=False,
            async_options=ocp.AsyncOptions(post_finalization_callback=write_manifest),
        ),
    )


def _rank(scores: Mapping[str, Any]) -> float:
    value = scores["mean_iou"]
    return -math.inf if value is None else value


def _restore_args(target: Any, *, partial: bool = False) -> ocp.args.PyTreeRestore:
    restore_args = ocp.checkpoint_utils.construct_restore_args(target)
    return ocp.args.PyTreeRestore(item=target, restore_args=restore_args, partial_restore=partial)


def find_checkpoint(
    path: pathlib.Path, prefer: Literal["best", "latest"] = "best", say: Say | None = None
) -> pathlib.Path:
    """An intact checkpoint in a workdir, in a checkpoint folder, or the one that `path` is; see `restore_variables`."""
    if path.is_dir() and path.name.isdecimal() and not (path / FOLDER).is_dir():
        return require_intact(path)
    directory = path / FOLDER if (path / FOLDER).is_dir() else path
    found = find_intact(directory, prefer=prefer, say=say or _print) if path.is_dir() else None
    if found is None:
        reason = "" if path.is_dir() else "there is no such folder; "
        raise UserError(f"no checkpoint in {path}: {reason}train first, or give --checkpoint=PATH")
    return found


def _print(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr)
