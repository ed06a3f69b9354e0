"""Compiles a config's train step for accelerators that need not be present, and reports its needs per chip.

    python main.py --config=configs/v3plus_voc.py --workdir=DIR --mode=compile --topology=v5e:4x4

Memory is what XLA allocates; traffic, convolutions and collectives are read from the program's text; nothing is run,
so no time is measured. The batch is the config's global one, over all chips.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

import jax

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.build_step import abstract_batch, build_step
from deeplab_jax.apps.assembly.devices import check_batch, make_mesh
from deeplab_jax.apps.request import Flag, Needs, Request
from deeplab_jax.config import Config
from deeplab_jax.files import write_whole
from deeplab_jax.hardware.program_text import count_bytes, read_collectives, read_convolutions
from deeplab_jax.hardware.topologies import Topology, find_topology
from deeplab_jax.models.build import build_model
from deeplab_jax.models.cost import count_multiply_adds
from deeplab_jax.types import DatasetInfo, UserError

_LARGE_WINDOW = 15  # no kernel of the family is this large: it would be an atrous one with its holes filled by zeros
_EXPLANATION = """\
What this is: the program that this version of XLA compiles from this train step for that chip. The memory is what it
allocates; if it fits here it fits there, except that the runtime needs some hundred megabytes of its own.
What it is not: a measurement. Operations are counted from the network's shapes, bytes from the operands and results of
each kernel in the program's text (TPU: as the compiler estimates them), collectives in a loop once; nothing was run,
so the time of a step is unknown."""


FLAGS = (Flag("topology", "", "chips, which need not be present, e.g. v5e:4x4, v4:2x2x1, h100:8"),)
NEEDS = Needs.CONFIG


def run(request: Request) -> int:
    compile_for(request.config, request.workdir, request.flags["topology"])
    return 0


def compile_for(config: Config, workdir: pathlib.Path, topology_name: str) -> None:
    """Prints what the train step needs on a topology, and writes the same to WORKDIR/compile_NAME.json.

    Raises:
      UserError: if the topology is unknown, its compiler is missing, or the batch does not divide evenly over it.
    """
    if not topology_name:
        raise UserError("--mode=compile needs --topology, e.g. --topology=v5e:4x4 or --topology=h100")
    jax.config.update("jax_platforms", "cpu")  # do not touch real accelerators
    jax.config.update("jax_enable_compilation_cache", False)  # it only handles programs that can be run
    topology = find_topology(topology_name)
    report = compile_report(config, open_data.find_info(config, workdir, names_matter=False), topology)
    path = workdir / f"compile_{re.sub('[^a-z0-9]+', '_', topology_name)}.json"
    write_whole(path, json.dumps(report, indent=1) + "\n")
    print(compile_page(report))
    print(f"written to  {path}")


def lower_train_step(config: Config, info: DatasetInfo, devices: list[Any]) -> jax.stages.Lowered:
    """The train step as training builds it, lowered for these devices, which need not exist."""
    mesh = make_mesh(config, devices)
    check_batch(config, mesh)
    step = build_step(config, info, mesh)
    return step.train_step.lower(step.state, abstract_batch(config, info, mesh))


def compile_report(config: Config, info: DatasetInfo, topology: Topology) -> dict[str, Any]:
    """XLA's analysis of the program, ready for JSON."""
    started = time.monotonic()
    chip, num_chips = topology.chip, len(topology.devices)
    report: dict[str, Any] = {
        "topology": topology.name,
        "chip": chip.kind,
        "num_chips": num_chips,
        "device_kind": topology.devices[0].device_kind,
        "network": f"{config.model.backbone.name} {config.model.head.name}",
        "output_stride": config.model.output_stride,
        "compute_dtype": config.model.compute_dtype,
        "batch_size": config.data.batch_size,
        "crop_size": list(config.data.crop_size),
        "mesh": [config.mesh.data or num_chips // config.mesh.space, config.mesh.space],
        "remat": list(config.model.remat),
        "chip_memory": chip.memory,
        "convolution_flops": convolution_flops(config, info) // num_chips,
        "jax": jax.__version__,
    }
    lowered = lower_train_step(config, info, topology.devices)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return report | {"fits": False, "error": " ".join(str(error).split())[:600], "memory": None}
    memory = memory_of(compiled)
    text = compiled.as_text() or ""
    return report | {
        "fits": memory["total"] <= chip.memory,
        "memory": memory,
        "bytes_moved": (compiled.cost_analysis() or {}).get("bytes accessed") or count_bytes(text),
        "collectives": {kind: dataclasses.asdict(traffic) for kind, traffic in read_collectives(text).items()},
        "convolutions": [
            {**convolution._asdict(), "count": count} for convolution, count in read_convolutions(text).most_common()
        ],
        "seconds_to_compile": round(time.monotonic() - started, 1),
    }


def convolution_flops(config: Config, info: DatasetInfo) -> int:
    """FLOPs of one step's convolutions over all chips: forward, plus twice as many for the two gradients."""
    multiply_adds = count_multiply_adds(build_model(config.model, info), config.data.crop_size)
    return 3 * 2 * multiply_adds * config.data.batch_size


def memory_of(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes on one device; outputs that reuse the buffer of a donated argument are counted once in `total`."""
    stats: Any = compiled.memory_analysis()
    found = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
    }
    return found | {"total": sum(found.values())}


def compile_page(report: Mapping[str, Any]) -> str:
    """The report as a page of text."""
    lines = [
        f"topology    {report['topology']}: {report['num_chips']} x {report['device_kind']}, "
        f"{report['batch_size'] / report['num_chips']:g} images of {report['batch_size']} on each",
        f"network     {report['network']}, output stride {report['output_stride']}, {report['compute_dtype']}",
    ]
    if report["memory"] is None:
        return "\n".join([*lines, f"fits        no: {report['error']}", "", _EXPLANATION])
    memory = report["memory"]
    lines += [
        f"memory      {_scaled(memory['total'], 'B')} of {_scaled(report['chip_memory'], 'B')} on each chip: "
        + ", ".join(f"{name} {_scaled(memory[name], 'B')}" for name in memory if name != "total"),
        f"fits        {'yes' if report['fits'] else 'no'}",
        f"work        {_scaled(report['convolution_flops'], 'FLOP')} of convolutions, "
        f"{_scaled(report['bytes_moved'], 'B')} read and written, on each chip and step",
        "collectives " + (_collectives(report["collectives"]) or "none"),
        "convolutions:",
        *(f"  {each}" for each in _convolutions(report["convolutions"])),
    ]
    return "\n".join([*lines, "", _EXPLANATION])


def large_windows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The convolutions whose window is larger than any kernel of the family."""
    return [each for each in report["convolutions"] if max(each["window"], default=1) >= _LARGE_WINDOW]


def _collectives(found: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(f"{each['count']} {kind} ({each['bytes'] / 1e6:.1f} MB)" for kind, each in found.items())


def _convolutions(found: list[dict[str, Any]]) -> list[str]:
    """One line per combination of call, window, stride and dilation, the most frequent first."""
    groups: dict[str, int] = {}
    for each in found:
        sizes = "x".join(map(str, each["window"])) or "1x1"
        extras = [
            f"{name} {'x'.join(map(str, each[name]))}"
            for name in ("stride", "dilation", "base_dilation")
            if any(number != 1 for number in each[name])
        ]
        grouped = [f"{each['groups']} groups"] if each["groups"] > 1 else []
        key = ", ".join([f"{each['call']} {sizes}", *extras, *grouped])
        groups[key] = groups.get(key, 0) + each["count"]
    return [f"{count:4d} {key}" for key, count in sorted(groups.items(), key=lambda item: -item[1])]


def _scaled(count: float, unit: str) -> str:
    """'8.39 GB', or in MB below 1 GB."""
    return f"{count / 1e9:.2f} G{unit}" if count >= 1e9 else f"{count / 1e6:.1f} M{unit}"
