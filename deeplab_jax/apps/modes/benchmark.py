"""Times a config's train step, evaluation and loader on the available devices, and compares them with their limits.

    python main.py --config=configs/quickstart.py --workdir=DIR --mode=benchmark

The step is the one used in training, on a random batch already on the devices; the data set is needed only for the
loader's throughput. The page explains each figure; benchmark.json has the same in machine-readable form.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.build_step import build_step, state_options
from deeplab_jax.apps.assembly.devices import check_batch, make_mesh
from deeplab_jax.apps.assembly.memory_report import explain_out_of_memory
from deeplab_jax.apps.assembly.open_data import make_device_augment, open_loader
from deeplab_jax.apps.assembly.predictor_settings import predictor_options
from deeplab_jax.apps.modes.compile import convolution_flops
from deeplab_jax.apps.pages.benchmark_table import benchmark_page
from deeplab_jax.apps.request import Flag, Needs, Request
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.workers import available_cores
from deeplab_jax.files import write_whole
from deeplab_jax.hardware.chips import find_chip
from deeplab_jax.hardware.program_text import count_bytes
from deeplab_jax.hardware.roofline import call_times, measure_limits, pace_of
from deeplab_jax.inference.evaluator import make_confusion_step
from deeplab_jax.inference.forward import make_forward
from deeplab_jax.ops.mesh import shard_batch
from deeplab_jax.train.state import create_train_state, create_variables
from deeplab_jax.train.step_memory import StepMemory, step_memory
from deeplab_jax.types import Batch, DatasetInfo, UserError, Variables

FILE = "benchmark.json"  # inside a workdir

_SECONDS = 10.0  # approximate duration of each measurement
_FEWEST, _MOST = 5, 200  # number of timed calls


FLAGS: tuple[Flag, ...] = ()
NEEDS = Needs.NETWORK


def run(request: Request) -> int:
    benchmark(request.config, request.workdir)
    return 0


def benchmark(config: Config, workdir: pathlib.Path) -> None:
    """Prints a page of figures and writes them to WORKDIR/benchmark.json.

    Raises:
      UserError: if the config does not fit the devices or the data set, or a device runs out of memory.
    """
    mesh = make_mesh(config)
    check_batch(config, mesh)
    dataset, refusal = _open_data(config, workdir)
    info = dataset.info if dataset else open_data.find_info(config, workdir, names_matter=False)
    needs: list[StepMemory] = []
    with explain_out_of_memory(config, mesh, needs):
        report = _describe_run(config, mesh)
        report["limits"] = measure_limits(mesh, config.model.compute_dtype)._asdict()
        variables, model, report["step"] = _measure_step(config, info, mesh, needs)
        report["evaluation"] = _measure_evaluation(config, info, mesh, model, variables)
    report["loader"] = _measure_loader(config, dataset, mesh) if dataset else {"refusal": refusal}
    write_whole(workdir / FILE, json.dumps(report, indent=1) + "\n")
    print(benchmark_page(report))
    print(f"written to  {workdir / FILE}")


def _open_data(config: Config, workdir: pathlib.Path) -> tuple[Dataset | None, str]:
    """(data set, '') or (None, why it cannot be opened)."""
    try:
        return open_data.open_normalized(config, workdir), ""
    except UserError as error:
        return None, str(error)


def _describe_run(config: Config, mesh: Mesh) -> dict[str, Any]:
    """The devices, the network and the batch that are measured."""
    device = mesh.devices.flat[0]
    chip = find_chip(device.device_kind)
    return {
        "device_kind": device.device_kind,
        "platform": device.platform,
        "num_devices": mesh.size,
        "num_cores": available_cores(),
        "chip": chip and {"kind": chip.kind, "flops": chip.flops, "memory_bandwidth": chip.memory_bandwidth},
        "network": f"{config.model.backbone.name} {config.model.head.name}",
        "output_stride": config.model.output_stride,
        "compute_dtype": config.model.compute_dtype,
        "batch_size": config.data.batch_size,
        "crop_size": list(config.data.crop_size),
        "jax": jax.__version__,
    }


def _measure_step(
    config: Config, info: DatasetInfo, mesh: Mesh, needs: list[StepMemory]
) -> tuple[Variables, nn.Module, dict[str, Any]]:
    """(variables, network, figures) of the training step on random weights and a random batch."""
    step = build_step(_without_counting(config, info), info, mesh)
    started = time.perf_counter()
    variables = create_variables(step.init, seed=config.seed, mesh=mesh)
    state = create_train_state(variables, step.tx, mesh=mesh, **state_options(config))
    jax.block_until_ready(state)
    init_seconds = time.perf_counter() - started

    batch = shard_batch(_random_batch(info, config.data.batch_size, config.data.crop_size), mesh)
    with _noticing_kept_programs() as kept:
        started = time.perf_counter()
        program = step.train_step.lower(state, batch).compile()
        compile_seconds = time.perf_counter() - started
    needs.append(step_memory(state, batch, program))

    def run() -> Any:
        nonlocal state
        state, metrics = program(state, batch)
        return metrics

    pace = pace_of(_timed(run))
    moved = (program.cost_analysis() or {}).get("bytes accessed") or count_bytes(program.as_text() or "")
    figures = {
        **pace._asdict(),
        "images_per_second": config.data.batch_size / pace.median,
        "convolution_flops": convolution_flops(config, info),
        "bytes_moved": moved * mesh.size,
        "memory": dataclasses.asdict(needs[-1]) | {"total": needs[-1].total},
        "init_seconds": init_seconds,
        "compile_seconds": compile_seconds,
        "compilation_was_kept": bool(kept),
    }
    return state.eval_variables, step.model, figures


def _measure_evaluation(
    config: Config, info: DatasetInfo, mesh: Mesh, model: nn.Module, variables: Variables
) -> dict[str, Any]:
    """Figures of an evaluation step: all passes over a batch, its confusion matrices and measures."""
    options = predictor_options(config, info)
    settings = options.settings
    size = settings.canvas.around(config.data.crop_size)
    num_images = -(-settings.batch_size // mesh.size) * mesh.size
    if settings.compute_dtype:
        model = network.build(network.for_inference(config), info)
    step = make_confusion_step(
        make_forward(model.apply, settings, align_corners=options.align_corners, task=info.task),
        mesh,
        num_classes=info.num_classes,
        ignore_label=info.ignore_label,
        measures=settings.measures,
        task=info.task,
        thresholds=options.thresholds,
    )
    batch = shard_batch(_random_batch(info, num_images, size), mesh)
    pace = pace_of(_timed(lambda: step(variables, batch)))
    return {
        **pace._asdict(),
        "images_per_second": num_images / pace.median,
        "batch_size": num_images,
        "size": list(size),
        "scales": list(settings.scales),
        "flip": settings.flip,
    }


def _measure_loader(config: Config, dataset: Dataset, mesh: Mesh) -> dict[str, Any]:
    """Images per second from the loader while nothing else runs, and the time of augmentation on the devices."""
    with contextlib.closing(open_loader(config, dataset)) as loader:
        for _ in range(config.data.prefetch + 1):  # started before the clock
            batch = next(loader)
        times: list[float] = []
        started = time.perf_counter()
        while len(times) < _FEWEST or (len(times) < _MOST and time.perf_counter() - started < _SECONDS):
            asked = time.perf_counter()
            batch = next(loader)
            times.append(time.perf_counter() - asked)
    figures = {"images_per_second": config.data.batch_size * len(times) / sum(times), "num_calls": len(times)}
    if config.data.device_augmentation:
        augment, windows = make_device_augment(config, dataset, mesh), shard_batch(batch, mesh)
        figures["augment_seconds"] = pace_of(_timed(lambda: augment(windows))).median
    return figures


def _timed(call: Callable[[], Any]) -> list[float]:
    """Seconds of each of several calls; as many as fit into the time for a measurement."""
    jax.block_until_ready(call())  # compiles and allocates memory
    started = time.perf_counter()
    jax.block_until_ready(call())
    fitting = int(_SECONDS / (time.perf_counter() - started))
    return call_times(call, num_calls=max(_FEWEST, min(_MOST, fitting)))


def _random_batch(info: DatasetInfo, num_images: int, size: tuple[int, int]) -> Batch:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (num_images, *size, info.channels)).astype(info.dtype)
    values = 2 if info.label_maps else info.num_classes
    label = rng.integers(0, values, (num_images, *size, *info.label_maps), dtype=info.label_dtype)
    return Batch(image, label, np.ones(num_images, bool))


def _without_counting(config: Config, info: DatasetInfo) -> Config:
    """Replaces class weights that would be computed from the data by ones: a step takes just as long."""
    if not isinstance(config.loss.class_weights, str) or not config.loss.class_weights:
        return config
    loss = dataclasses.replace(config.loss, class_weights=(1.0,) * info.num_classes)
    return dataclasses.replace(config, loss=loss)


@contextlib.contextmanager
def _noticing_kept_programs() -> Iterator[list[str]]:
    """Yields a list that becomes non-empty if a program comes from the cache on disk instead of the compiler."""
    kept: list[str] = []

    def listen(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            kept.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        yield kept
    finally:
        jax.monitoring.unregister_event_listener(listen)
