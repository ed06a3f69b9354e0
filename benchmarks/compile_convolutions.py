"""Compiles every convolution of the networks, in every formulation, for an H100 that need not be present.

    python benchmarks/compile_convolutions.py [--only=REGEX] [--again] [--table]

What it shows without a GPU: which library call or fusions XLA makes of each shape in each of the three directions, how
many bytes their operands and results have relative to the minimum (the operands and the result of the convolution,
once), and how many operations relative to the useful ones (taps inside the image). It cannot show time: the autotuner
has no device to try its candidates on, and neither a call's efficiency nor its cache hits are in a program's text. It
prepares the first run on a GPU and lists what that should measure.

Needs the CUDA plugin, not the GPU (--mode=compile says which). Several thousand programs, a quarter of an hour on one
core; those already in the JSON are skipped without --again. --only selects the shapes whose name matches.
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib
import math
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.depthwise_pallas import with_pallas
from benchmarks.program_kernels import count_flops, read_kernels
from benchmarks.shapes import DIRECTIONS, Shape
from benchmarks.tables import PERFORMANCE, markdown_table, read_results, write_between, write_results
from deeplab_jax.hardware.chips import CHIPS
from deeplab_jax.hardware.program_text import count_bytes, read_convolutions
from deeplab_jax.hardware.topologies import find_topology
from deeplab_jax.models.build import build_model
from deeplab_jax.nn.layers import AtrousConv, AtrousDepthwiseConv
from deeplab_jax.ops.convolution import geometry as convolution
from deeplab_jax.ops.convolution.implementations import Implementation

TOPOLOGY, BATCH, SIZE, DTYPE = "h100", 16, (513, 513), jnp.bfloat16
# v3 ResNet-50 has the shapes of v3 ResNet-101, fewer of each.
NETWORKS = (
    ("v3_voc_resnet101", 16),
    ("v3_voc_resnet101", 8),
    ("v3plus_voc", 16),
    ("v3plus_voc", 8),
    ("v3plus_voc_xception65", 16),
    ("v3plus_voc_xception65_separable", 16),
    ("v3_voc_mobilenet_v2", 16),
    ("v3plus_voc_mobilenet_v2", 16),
)
NUM_PLAIN = 16  # undilated dense shapes kept: those with the most work in a network

# CPU implementations, and one that only chooses between two others.
LEFT_OUT = {"channelwise", "winograd", "regions", "joint", "fewer_bytes"}


def collect_shapes() -> dict[Shape, dict[str, int]]:
    """Every shape -> how often it occurs in each network."""
    found: dict[Shape, dict[str, int]] = {}
    for config, output_stride in NETWORKS:
        for shape, count in _shapes_of(config, output_stride).items():
            found.setdefault(shape, {})[f"{config} OS{output_stride}"] = count
    plain = [shape for shape in found if shape.kind == "dense" and shape.rate == 1]
    frequent = sorted(plain, key=lambda shape: -shape.work * max(found[shape].values()))[:NUM_PLAIN]
    return {shape: uses for shape, uses in found.items() if shape not in plain or shape in frequent}


def _shapes_of(config: str, output_stride: int) -> collections.Counter[Shape]:
    settings = importlib.import_module(f"configs.{config}").get_config().model
    settings.num_classes, settings.output_stride = 21, output_stride
    model = build_model(settings)
    found: collections.Counter[Shape] = collections.Counter()

    def note(method: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, (AtrousConv, AtrousDepthwiseConv)):
            rate = layer.rate if isinstance(layer.rate, int) else max(layer.rate)
            features = layer.features if isinstance(layer, AtrousConv) else 0
            height, width, channels = args[0].shape[1:]
            rate = rate if layer.kernel_size > 1 else 1
            found[Shape(height, width, channels, features, layer.kernel_size, layer.stride, rate)] += 1
        return method(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.uint8)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    return found


def compile_shape(shape: Shape, sharding: Any) -> dict[str, Any]:
    """Direction -> the limits, and the compiled form of each formulation."""
    if shape.features:
        kernel_shape = (shape.taps, shape.taps, shape.channels, shape.features)
    else:
        kernel_shape = (shape.taps, shape.taps, 1, shape.channels)

    def array(*size: int) -> Any:
        return jax.ShapeDtypeStruct(size, DTYPE, sharding=sharding)

    x, kernel = array(BATCH, shape.height, shape.width, shape.channels), array(*kernel_shape)
    # For odd sizes all paddings agree.
    geometry = convolution.geometry_of(x, kernel, (shape.stride,) * 2, (shape.rate,) * 2, "tf_same")
    dy = array(BATCH, *convolution.output_size(x, kernel, geometry), shape.features or shape.channels)
    limits = {
        "bytes": sum(each.size * each.dtype.itemsize for each in (x, kernel, dy)),
        "flops": 2 * BATCH * _pixels_inside(x, kernel, geometry) * math.prod(kernel_shape[2:]),
    }
    report: dict[str, Any] = {}
    for direction in DIRECTIONS:
        arguments = (x, kernel) if direction == "forward" else (x, kernel, dy)
        report[direction] = {**limits, "formulations": {}}
        for name, function in formulations(shape, direction):
            compiled = jax.jit(functools.partial(function, geometry=geometry)).lower(*arguments).compile()
            report[direction]["formulations"][name] = describe(compiled)
    return report


def formulations(shape: Shape, direction: str) -> Iterator[tuple[str, Implementation]]:
    """Those that a GPU might run."""
    for name, function in with_pallas(shape.kind + DIRECTIONS[direction]).items():
        if name not in LEFT_OUT and (name != "phases" or (shape.rate > 1 and shape.stride == 1)):
            yield name, function


def _pixels_inside(x: Any, kernel: Any, geometry: convolution.Geometry) -> int:
    """The number of (tap, output pixel) pairs of an image whose input lies inside it."""
    inside = 1
    for size, count, num_taps, stride, (low, _), rate in zip(
        x.shape[1:3],
        convolution.output_size(x, kernel, geometry),
        kernel.shape[:2],
        *geometry,
        strict=True,
    ):
        reads = (out * stride + tap * rate - low for out in range(count) for tap in range(num_taps))
        inside *= sum(0 <= read < size for read in reads)
    return inside


def describe(compiled: Any) -> dict[str, Any]:
    """What a program's text says."""
    text = compiled.as_text()
    windows = [each for each in read_convolutions(text) if each.call.startswith("__cudnn")]
    return {
        "kernels": dict(read_kernels(text)),
        "windows": ["x".join(map(str, each.window)) for each in windows],
        "bytes": count_bytes(text),
        "flops": count_flops(text),
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown, depthwise first, then dilated, then the others."""
    header = ["input, channels, kernel", "times", "µs:", "forward", "gradient to the input", "gradient to the kernel"]
    rows = []
    order = sorted(results["shapes"].items(), key=lambda item: (bool(item[1]["features"]), item[1]["rate"] == 1))
    for name, shape in order:
        limits = shape["directions"]["forward"]
        chip = CHIPS[TOPOLOGY]
        seconds = max(limits["bytes"] / chip.memory_bandwidth, limits["flops"] / chip.flops)
        cells = [_cell(shape["directions"][direction]) for direction in DIRECTIONS]
        rows.append([name, max(shape["uses"].values()), f"{seconds * 1e6:.0f}", *cells])
    return markdown_table(header, rows)


def _cell(direction: dict[str, Any]) -> str:
    """'pallas 1.0, lax 3.0 (33x33)': bytes over the minimum, in increasing order; operations if above the minimum."""
    words = []
    for name, each in sorted(direction["formulations"].items(), key=lambda item: item[1]["bytes"]):
        work = each["flops"] / direction["flops"]
        notes = [window for window in each["windows"] if int(window.split("x")[0]) >= 15]
        notes += [f"work {work:.1f}"] if work > 1.25 else []
        words.append(f"{name} {each['bytes'] / direction['bytes']:.1f}" + (f" ({', '.join(notes)})" if notes else ""))
    return ", ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    name = f"convolutions_{TOPOLOGY}"
    results = read_results(name) or {"shapes": {}}
    if not options.table:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_compilation_cache", False)
        sharding = SingleDeviceSharding(find_topology(TOPOLOGY).devices[0])
        results |= {"topology": TOPOLOGY, "batch_size": BATCH, "dtype": jnp.dtype(DTYPE).name, "jax": jax.__version__}
        for shape, uses in collect_shapes().items():
            if not re.search(options.only, shape.name) or (shape.name in results["shapes"] and not options.again):
                continue
            print(shape.name, flush=True)
            report = {**shape._asdict(), "uses": uses, "directions": compile_shape(shape, sharding)}
            results["shapes"][shape.name] = report
            write_results(name, results)
    write_between(PERFORMANCE, "convolutions on h100", table(results))


if __name__ == "__main__":
    main()
