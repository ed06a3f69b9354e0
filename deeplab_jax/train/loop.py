"""The training loop: dispatch a step, look back at the previous one, evaluate, save, stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from deeplab_jax.ops.mesh import shard_batch
from deeplab_jax.train.checkpoint import Checkpointer
from deeplab_jax.train.idle import IdleTime
from deeplab_jax.train.nonfinite import ExplainSkip
from deeplab_jax.train.progress import Progress, Window
from deeplab_jax.train.settings import TrainConfig
from deeplab_jax.train.signals import StopSignal
from deeplab_jax.train.state import TrainState
from deeplab_jax.train.writer import MetricWriter
from deeplab_jax.types import Batch, Loader, Metrics, UserError

Evaluate = Callable[[int, TrainState], Mapping[str, Any]]  # (step, state) -> scores
_LARGE_GAP = 0.3  # between the pixel accuracies of training and evaluation, for a warning
Augment = Callable[[Any], Batch]  # the loader's batch, on the devices -> crops


def train_loop(
    state: TrainState,
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    loader: Loader,
    evaluate: Evaluate,
    *,
    mesh: Mesh,
    settings: TrainConfig,
    batch_size: int,
    checkpointer: Checkpointer,
    writer: MetricWriter,
    stop: StopSignal,
    augment: Augment = lambda batch: batch,
    explain_skip: ExplainSkip | None = None,
) -> TrainState:
    """Trains from the state's step to `num_steps`, or until `stop` has received a signal.

    The metrics of a step are fetched after the next one has been dispatched, so the device never waits for the host;
    batches are prepared and transferred while it computes. How long it still had to wait for one is logged separately
    from the step's own time and from the time to fetch metrics. A checkpoint is written every `checkpoint_every` steps,
    after each evaluation that is the best so far, at the end (which `patience` may bring forward) and on a stop signal;
    a full disk ends the run only in the last two cases.

    Args:
      state: the initial state; it is donated.
      train_step: from `make_train_step`.
      loader: must be positioned at the state's step.
      evaluate: called every `eval_every` steps and at the end.
      batch_size: images per step, for the throughput.
      augment: applied to each batch on the devices before the step.
      explain_skip: from `make_explain_skip`; called after each skipped step. With it each step is waited for.

    Returns:
      The final state.

    Raises:
      UserError: if `max_nonfinite_steps` consecutive updates were skipped, naming the files; if the last state cannot
        be saved.
    """
    start = int(state.step)
    progress = Progress(settings.num_steps, start, images_per_step=batch_size, enabled=jax.process_index() == 0)
    window, idle = Window(batch_size), IdleTime()
    guard = _NonfiniteGuard(settings.max_nonfinite_steps, loader, checkpointer, progress)
    pending: tuple[int, Any] | None = None
    accuracy = 0.0  # of the last batch

    def look_back() -> None:
        nonlocal accuracy
        if pending is None:
            return
        step, metrics = pending[0], _fetch(pending[1], window)
        guard.check(step, skipped=bool(metrics["skipped"]))
        window.add(metrics)
        accuracy = float(metrics["pixel_accuracy"])
        progress.advance(metrics, window)
        if step % settings.log_every == 0 or step == settings.num_steps:
            point = window.flush()
            progress.point(step, point)
            writer.write(step, point)

    def is_out_of_patience(step: int) -> bool:
        # Counted from the checkpoints, so that a resumed run ends where an uninterrupted one does.
        since_best = step - (checkpointer.best_step or 0)
        return bool(settings.patience) and since_best >= settings.patience * settings.eval_every

    last = start if is_out_of_patience(start) else settings.num_steps
    for step in range(start + 1, last + 1):
        asked = time.perf_counter()
        batch = shard_batch(next(loader), mesh)
        window.add_times(data=idle.since(asked), host=idle.before(asked))
        batch = augment(batch)
        state, metrics = train_step(state, batch)
        stop.begin()
        idle.watch(metrics)
        look_back()
        pending = (step, metrics)
        if explain_skip and bool(metrics["skipped"]):
            progress.say(f"step {step} is run again to find what is not finite; its program is compiled anew")
            progress.say(f"step {step}: {explain_skip(state, batch, loader.names_at(step - 1))}")
        is_end = stop.requested(step) or step == settings.num_steps
        is_evaluated = step % settings.eval_every == 0 or step == settings.num_steps
        is_saved = step % settings.checkpoint_every == 0 or is_end
        if not (is_evaluated or is_saved):
            continue
        look_back()
        pending = None
        window.pause()
        scores = evaluate(step, state) if is_evaluated else None
        if scores is not None:
            progress.say(f"step {step}: {_describe(scores)}")
            if warning := _gap(accuracy, scores):
                progress.say(f"warning: step {step}: {warning}")
        is_best = scores is not None and checkpointer.is_best(scores)
        if scores is not None and not is_best and not is_end and is_out_of_patience(step):
            progress.say(f"step {step}: no better mean IoU in {settings.patience} evaluations: the run ends")
            is_saved = is_end = True
        if is_saved or is_best:
            refusal = checkpointer.save(step, state, data=loader.get_state(), scores=scores, required=is_end)
            if refusal:
                progress.say(f"warning: step {step}: {refusal}; training goes on")
            window.restart()
        if is_end:
            break
    progress.close()
    return state


def _fetch(metrics: Any, window: Window) -> Mapping[str, Any]:
    """Metrics on the host; the time that the transfer takes after the end of their step is added to the window."""
    jax.block_until_ready(metrics)
    ended = time.perf_counter()
    fetched = jax.device_get(metrics)
    window.add_times(fetch=time.perf_counter() - ended)
    return fetched


def _describe(scores: Mapping[str, Any]) -> str:
    mean_iou = scores["mean_iou"]
    return (
        "nothing to score"
        if mean_iou is None
        else f"mean IoU {mean_iou:.4f}, pixel accuracy {scores['pixel_accuracy']:.4f}"
    )


def _gap(accuracy: float, scores: Mapping[str, Any]) -> str:
    """What to do where training and evaluation part; '' where they do not."""
    evaluated = scores.get("pixel_accuracy")
    if evaluated is None or accuracy - evaluated < _LARGE_GAP:
        return ""
    return (
        f"pixel accuracy is {accuracy:.2f} on the last batch and {evaluated:.2f} in the evaluation: early in a run "
        "batch norm's running statistics lag (config.model.batch_norm.start_correction=True, or a lower decay); if it "
        "lasts, the images of the two splits differ, or those of training are learned by heart"
    )


class _NonfiniteGuard:
    """Warns at each skipped update, and ends the run after `limit` in a row."""

    def __init__(self, limit: int, loader: Loader, checkpointer: Checkpointer, progress: Progress) -> None:
        self._limit, self._loader, self._checkpointer, self._progress = limit, loader, checkpointer, progress
        self._num_in_a_row = 0

    def check(self, step: int, *, skipped: bool) -> None:
        if not skipped:
            self._num_in_a_row = 0
            return
        self._num_in_a_row += 1
        files = ", ".join(self._loader.names_at(step - 1))
        if self._num_in_a_row >= self._limit:
            raise UserError(
                f"step {step}: loss or gradient not finite {self._num_in_a_row} times in a row; check the labels of "
                f"its files ({files}), or lower config.optimizer.learning_rate; "
                f"last checkpoint: {self._checkpointer.latest_step or 'none'}"
            )
        self._progress.say(f"warning: step {step} skipped: loss or gradient not finite; files {files}")
