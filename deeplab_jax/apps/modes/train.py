"""Trains, evaluates, saves checkpoints and writes a report; on an existing workdir, resumes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pathlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh
from tqdm import tqdm

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.build_step import Step, abstract_batch, build_step, state_options
from deeplab_jax.apps.assembly.class_weights import WEIGHTINGS, describe_weights, training_counts
from deeplab_jax.apps.assembly.devices import check_batch, make_mesh
from deeplab_jax.apps.assembly.evaluation import announce_shape, make_evaluator, write_evaluation
from deeplab_jax.apps.assembly.memory_report import describe_memory, explain_out_of_memory
from deeplab_jax.apps.assembly.open_data import make_device_augment, open_loader
from deeplab_jax.apps.assembly.processes import explain_lost_process, join_processes
from deeplab_jax.apps.assembly.run_lock import locked
from deeplab_jax.apps.assembly.workdir import has_checkpoints, keep_info, open_workdir
from deeplab_jax.apps.import_weights import pretrained_variables
from deeplab_jax.apps.pages.run_report import report
from deeplab_jax.apps.pages.score_table import collapse_warning
from deeplab_jax.apps.request import PROCESSES, Flag, Needs, Request
from deeplab_jax.config import Config, to_dict
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.inspection.class_counts import ClassCounts
from deeplab_jax.inference.evaluator import Evaluation
from deeplab_jax.ops.mesh import idle_devices, num_data, replicated, shard_batch
from deeplab_jax.train.checkpoint import FOLDER, Checkpointer
from deeplab_jax.train.compiled_step import CompiledStep
from deeplab_jax.train.loop import Augment, Evaluate, train_loop
from deeplab_jax.train.nonfinite import make_explain_skip
from deeplab_jax.train.recalibrate import calibrate_batch_norm
from deeplab_jax.train.signals import StopSignal
from deeplab_jax.train.state import (
    TrainState,
    create_train_state,
    create_variables,
)
from deeplab_jax.train.step_memory import StepMemory
from deeplab_jax.train.writer import MetricWriter
from deeplab_jax.types import Loader, UserError, Variables

FLAGS = (
    Flag("allow", "", "settings in which the workdir's run is continued differently: train.num_steps,..."),
    *PROCESSES,
)
NEEDS = Needs.NETWORK


def run(request: Request) -> int:
    flags = dict(request.flags)
    allow = [name.strip().removeprefix("config.") for name in flags.pop("allow").split(",") if name.strip()]
    join_processes(**flags)
    return train(request.config, request.workdir, allow)


def train(config: Config, workdir: pathlib.Path, allow: Sequence[str] = ()) -> int:
    """Trains to the last step and writes the report; a workdir that holds a run is resumed.

    Args:
      allow: see `open_workdir`.

    Returns:
      The exit status: 0 at the end and after SIGTERM, 130 after SIGINT.

    Raises:
      UserError: for any mistake that the user can fix.
    """
    mesh = make_mesh(config)
    check_batch(config, mesh)
    needs: list[StepMemory] = []
    with explain_lost_process(), explain_out_of_memory(config, mesh, needs), locked(workdir):
        step, received = _train(config, workdir, mesh, needs, allow)
    if received is not None and step < config.train.num_steps:
        _say(f"{received.name}: saved step {step}; the same command continues from there")
        return 128 + signal.SIGINT if received is signal.SIGINT else 0
    with explain_lost_process():
        report(config, workdir)
    return 0


def _train(
    config: Config, workdir: pathlib.Path, mesh: Mesh, needs: list[StepMemory], allow: Sequence[str]
) -> tuple[int, signal.Signals | None]:
    """Runs training; returns (last step, signal that stopped it). The memory of the step is appended to `needs`."""
    if changes := open_workdir(config, workdir, allow):
        _say(f"continuing with {'; '.join(changes)}")
    dataset = open_data.open_normalized(config, workdir)
    if jax.process_index() == 0:
        keep_info(dataset.info, workdir)
    counts = functools.partial(_count_classes, config, dataset, workdir)
    step = build_step(config, dataset.info, mesh, counts)

    def tell_needs(memory: StepMemory) -> None:
        needs.append(memory)
        _say(describe_memory(memory))

    _say(_describe(config, dataset, mesh, step.state.params))
    with (
        StopSignal(_leave) as stop,
        contextlib.closing(open_loader(config, dataset)) as loader,
        Checkpointer(workdir / FOLDER, keep=config.train.keep_checkpoints, config=to_dict(config)) as checkpointer,
    ):
        augment = make_device_augment(config, dataset, mesh)
        train_step = CompiledStep(step.train_step, tell_needs)
        if jax.process_count() == 1 and (checkpointer.latest_step or 0) < config.train.num_steps:
            train_step.begin(step.state, abstract_batch(config, dataset.info, mesh))
        state = _start_or_resume(config, step, mesh, loader, checkpointer, augment)
        enabled = jax.process_index() == 0
        with contextlib.closing(MetricWriter(workdir, start_step=int(state.step), enabled=enabled)) as writer:
            evaluator = make_evaluator(config, step.model, dataset, mesh, _announce_more)
            state = train_loop(
                state,
                train_step,
                loader,
                _make_evaluate(evaluator, workdir, checkpointer, writer),
                mesh=mesh,
                settings=config.train,
                batch_size=config.data.batch_size,
                checkpointer=checkpointer,
                writer=writer,
                stop=stop,
                augment=augment,
                explain_skip=make_explain_skip(step.train_step, mesh) if config.train.debug_nonfinite else None,
            )
        return int(state.step), stop.received


def _start_or_resume(
    config: Config, step: Step, mesh: Mesh, loader: Loader, checkpointer: Checkpointer, augment: Augment
) -> TrainState:
    """The state of the latest checkpoint, with the loader at its position, or the initial state."""
    if checkpointer.latest_step is not None:
        state, position = checkpointer.restore(step.state)
        loader.set_state(position)
        _say(f"resuming at step {int(state.step)}")
        return state
    pretrained = config.model.pretrained
    if pretrained.layout and not pretrained.source:
        raise UserError(
            f"config.model.pretrained.source is empty: give the file of layout '{pretrained.layout}', or start from "
            "random weights with --config.model.pretrained.layout="
        )
    variables = create_variables(step.init, seed=config.seed, mesh=mesh)
    if pretrained.source:
        variables = _load_pretrained(config, step.model, variables, loader, mesh, augment)
        loader.set_state({"position": 0})  # recalibration may have advanced it
    return create_train_state(variables, step.tx, mesh=mesh, **state_options(config))


def _load_pretrained(
    config: Config,
    model: nn.Module,
    variables: Variables,
    loader: Loader,
    mesh: Mesh,
    augment: Augment = lambda batch: batch,
) -> Variables:
    """Weights from a file; if batch norm is folded into them, its statistics are estimated."""
    pretrained = config.model.pretrained
    loaded, report, folded = pretrained_variables(config.model, variables, model)
    _say(f"pretrained {pretrained.scope} from {pretrained.source}: {report}")
    loaded = jax.device_put(loaded, replicated(mesh))
    if not folded:
        return loaded
    num_batches = pretrained.calibration_batches
    images = (augment(shard_batch(batch, mesh)).image for batch in itertools.islice(loader, num_batches))
    _say(f"estimating the statistics of its batch norms on {num_batches} batches")
    return jax.device_put(calibrate_batch_norm(model.apply, loaded, images), replicated(mesh))


def _leave(received: signal.Signals) -> None:
    """Ends the process before the first step: no thread of it holds anything that is not saved."""
    _say(f"{received.name}: no step taken yet; the same command starts again")
    os._exit(128 + signal.SIGINT if received is signal.SIGINT else 0)


def _make_evaluate(
    evaluator: Callable[[Variables], Evaluation],
    workdir: pathlib.Path,
    checkpointer: Checkpointer,
    writer: MetricWriter,
) -> Evaluate:
    """(step, state) -> scores; they are logged and, if they are the best so far, written to scores.json."""

    def evaluate(step: int, state: TrainState) -> Mapping[str, Any]:
        evaluation = evaluator(state.eval_variables)
        writer.write_evaluation(step, evaluation.scores)
        if (warning := collapse_warning(evaluation.scores)) and jax.process_index() == 0:
            tqdm.write(f"warning: step {step}: {warning}")  # does not disturb a progress bar
        if checkpointer.is_best(evaluation.scores) and jax.process_index() == 0:
            try:
                write_evaluation(workdir, evaluation, workdir / FOLDER / str(step))
            except UserError as error:  # a full disk need not stop training: the next best scores are written again
                tqdm.write(f"warning: step {step}: {error}; training goes on")
        return evaluation.scores

    return evaluate


def _announce_more(shape: tuple[int, ...], count: int) -> None:
    """Announces every shape after the first, which `inference.pad_to` would avoid."""
    if count > 1:
        announce_shape(shape, count)


def _count_classes(config: Config, dataset: Dataset, workdir: pathlib.Path) -> ClassCounts:
    """The class counts of the training split; prints the weights computed from them."""
    counts = training_counts(config, dataset, workdir, continued=has_checkpoints(workdir))
    weighting = str(config.loss.class_weights)
    _say(f"weights     {weighting}: {describe_weights(WEIGHTINGS[weighting](counts), dataset.info)}")
    return counts


def _describe(config: Config, dataset: Dataset, mesh: Mesh, params: Any) -> str:
    """Data set, parameters and devices of the run, in three lines."""
    info = dataset.info
    sizes = {part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in params.items()}
    splits = ", ".join(f"{name} {size}" for name, size in info.splits.items())
    parts = ", ".join(f"{part} {size:,}" for part, size in sizes.items())
    return (
        f"data set    {info.name}: {info.num_classes} classes, images: {splits}\n"
        f"parameters  {parts} ({config.model.backbone.name}, {config.model.head.name})\n"
        f"devices     {_describe_devices(config, mesh)}"
    )


def _describe_devices(config: Config, mesh: Mesh) -> str:
    """The devices, how they share a batch, and which are idle."""
    num_groups, kind = num_data(mesh), mesh.devices.flat[0].device_kind
    text = f"{mesh.size} x {kind}, {config.data.batch_size // num_groups} images of a batch on "
    text += "each" if num_groups == mesh.size else f"each {mesh.size // num_groups}, which share their height"
    if jax.process_count() > 1:
        text += f"; {jax.process_count()} processes"
    if idle := idle_devices(mesh):
        text += f"; idle: {', '.join(str(device) for device in idle)}"
    return text


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
