"""Estimated throughput of training on 1 to 2048 chips: the cost of a step from counts and data sheets.

    python benchmarks/scaling_model.py [--output=FILE.json]

    step = chip + gradients + batch norm + halos
    chip        max(operations / peak, bytes / memory bandwidth) / share          of one chip's images
    gradients   ring all-reduce of every gradient (of kernels in bfloat16 if the network computes in it), inside a fast
                domain (slice, machine) and then across domains, where each chip exchanges only its part of the sum;
                none of it overlaps with computation
    batch norm  two small all-reduces per layer, forward and backward: their latency; their bytes are negligible
    halos       if an image is shared by chips: one exchange of rows per convolution and direction: latency

Counts come from the configs; bytes from a step compiled for an H100 (benchmarks/results/compiled_steps.json). ASSUMED
and CLUSTERS hold the assumptions with their reasons. Writes the tables in docs/scaling.md; nothing is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import traverse_util  # noqa: E402

from benchmarks.compile_topologies import NAME, PAGE  # noqa: E402
from benchmarks.tables import read_results, write_between  # noqa: E402
from deeplab_jax.hardware.chips import CHIPS  # noqa: E402
from deeplab_jax.models.build import build_model  # noqa: E402
from deeplab_jax.models.cost import count_multiply_adds  # noqa: E402

NETWORKS = {"v3+ ResNet-101": "v3plus_voc", "v3+ Xception-65": "v3plus_voc_xception65"}
NUM_CLASSES = 21
LARGEST_BATCH = 1024  # the recipes end there: a larger one would have fewer than ten steps per epoch
IMAGES_PER_CHIP = 16  # as long as the batch allows
NUM_CHIPS = tuple(2**power for power in range(12))

ASSUMED = {
    "share": (
        0.55,
        "of the larger of the two floors: a copy reaches 0.9 of the data sheet's bandwidth (H100: 3.0 of 3.35 TB/s "
        "measured), and well-tuned convolution networks reach 0.6 of that floor",
    ),
    "link_share": (0.8, "of a link's bandwidth in large all-reduces, as published for NCCL and TPU"),
    "norm_group": (16, "images over which batch norm computes its statistics, as in the recipes; 0: the whole batch"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """Chips and the network that connects them.

    Attributes:
      chip: a kind of hardware/chips.py.
      domain: number of chips connected by their own fast links.
      slow_bandwidth: bytes per second of each chip, in one direction, to other domains.
      fast_latency: seconds of the smallest all-reduce inside a domain, at two chips.
      fast_growth: exponent of its growth with the number of chips (a torus of two axes: 1/2).
      slow_latency: seconds added by each doubling of the number of domains.
      reason: for the last four.
    """

    name: str
    chip: str
    domain: int
    slow_bandwidth: float
    fast_latency: float
    fast_growth: float
    slow_latency: float
    reason: str


CLUSTERS = (
    Cluster("TPU v5e", "v5e", 256, 25e9 / 8, 3e-6, 1 / 2, 50e-6, "200 Gb/s per host of 8 chips; 1 us per hop, 2D"),
    Cluster("TPU v5p", "v5p", 6144, 25e9 / 4, 3e-6, 1 / 3, 50e-6, "200 Gb/s per host of 4 chips; 1 us per hop, 3D"),
    Cluster("H100, InfiniBand", "h100", 8, 50e9, 10e-6, 0, 8e-6, "400 Gb/s per GPU; NCCL's usual latencies"),
    Cluster("H100, Ethernet", "h100", 8, 12.5e9 / 8, 10e-6, 0, 30e-6, "100 Gb/s per host of 8 GPUs; TCP"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """The cost of a network, in counts."""

    operations: int  # of an image's convolutions, including both gradients
    bytes_per_image: float
    bytes_per_step: float  # for parameters, gradients and momentum, whatever the batch
    gradient_bytes: int
    num_norms: int
    num_spatial: int  # convolutions that read beyond a pixel


def reduced_bytes(params: Any, batch_stats: Any) -> int:
    """Bytes that the all-reduces of one step sum on each chip in float32, except for a few scalars.

    Every gradient once, and mean and mean square of each batch norm. The two sums of its backward pass are the
    gradients of its bias and scale, which are summed anyway.
    """
    return 4 * sum(leaf.size for leaf in jax.tree.leaves((params, batch_stats)))


def count(config_name: str, compiled: Mapping[str, Any]) -> Network:
    """The counts of a config's network at its crop size; bytes from `compiled`, compile_topologies.py's results."""
    config = importlib.import_module(f"configs.{config_name}").get_config()
    config.model.num_classes = NUM_CLASSES
    model = build_model(config.model)
    images = jax.ShapeDtypeStruct((2, *config.data.crop_size, 3), jnp.uint8)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    kernel_width = jnp.dtype(config.model.compute_dtype).itemsize  # a kernel's gradient is summed before it is widened
    gradient_bytes = sum(leaf.size * (kernel_width if leaf.ndim == 4 else 4) for leaf in params.values())
    step = compiled[f"{config_name} h100"]
    # In float32: parameters and momentum read and written, gradients written and read.
    bytes_per_step = 6 * 4 * sum(leaf.size for leaf in params.values())
    return Network(
        operations=6 * count_multiply_adds(model, config.data.crop_size),
        bytes_per_image=(step["bytes_moved"] - bytes_per_step) / step["batch_size"],
        bytes_per_step=bytes_per_step,
        gradient_bytes=gradient_bytes,
        num_norms=sum(path.endswith("/scale") for path in params),
        num_spatial=sum(leaf.ndim == 4 and leaf.shape[0] > 1 for leaf in params.values()),
    )


def predict(network: Network, cluster: Cluster, num_chips: int, norm_group: int) -> dict[str, float]:
    """The parts of a step in seconds, its images, and images per second; batch norm over `norm_group` images."""
    chip = CHIPS[cluster.chip]
    batch = min(IMAGES_PER_CHIP * num_chips, LARGEST_BATCH)
    images = batch / num_chips
    sharing = max(math.ceil(1 / images), 1)  # chips that share an image
    traffic = network.bytes_per_image * images + network.bytes_per_step
    on_chip = max(network.operations * images / chip.flops, traffic / chip.memory_bandwidth) / ASSUMED["share"][0]
    inside, across = min(num_chips, cluster.domain), math.ceil(num_chips / cluster.domain)
    link_share = ASSUMED["link_share"][0]
    gradients = 2 * network.gradient_bytes * (1 - 1 / inside) / (chip.link_bandwidth * link_share)
    gradients += 2 * network.gradient_bytes / inside * (1 - 1 / across) / (cluster.slow_bandwidth * link_share)
    in_group = min(num_chips, max(math.ceil((norm_group or batch) / images), 1))
    norms = 2 * network.num_norms * latency(cluster, in_group)
    halos = 2 * network.num_spatial * latency(cluster, sharing)
    step = on_chip + gradients + norms + halos
    parts = {"chip": on_chip, "gradients": gradients, "batch norm": norms, "halos": halos}
    return {"chips": num_chips, "batch": batch, "images_per_second": batch / step, **parts}


def latency(cluster: Cluster, num_chips: int) -> float:
    """Seconds of an all-reduce of a few bytes."""
    if num_chips == 1:
        return 0.0
    inside, across = min(num_chips, cluster.domain), math.ceil(num_chips / cluster.domain)
    return cluster.fast_latency * (inside / 2) ** cluster.fast_growth + cluster.slow_latency * math.log2(across)


def table(network: Network, cluster: Cluster) -> tuple[str, list[dict[str, float]]]:
    """The rows of a network on a cluster, as Markdown and as data."""
    rows = [predict(network, cluster, num_chips, ASSUMED["norm_group"][0]) for num_chips in NUM_CHIPS]
    synced = [predict(network, cluster, num_chips, 0) for num_chips in NUM_CHIPS]
    lines = [
        "| chips | batch | on chip, ms | gradients | batch norm | halos | images/s | of linear | global batch norm |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row, other in zip(rows, synced, strict=True):
        parts = " | ".join(f"{1e3 * row[part]:.2f}" for part in ("chip", "gradients", "batch norm", "halos"))
        linear = row["images_per_second"] / rows[0]["images_per_second"] / row["chips"]
        lines.append(
            f"| {row['chips']:.0f} | {row['batch']:.0f} | {parts} | {row['images_per_second']:,.0f} | {linear:.0%} "
            f"| {other['images_per_second']:,.0f} |"
        )
    return "\n".join(lines) + f"\n\n{where_it_stops(rows)}", rows


def where_it_stops(rows: list[dict[str, float]]) -> str:
    """The first doubling that gives less than 1.4 times the throughput, and what the step is spent on."""
    for before, after in itertools.pairwise(rows):
        if after["images_per_second"] < 1.4 * before["images_per_second"]:
            parts = {part: after[part] for part in ("chip", "gradients", "batch norm", "halos")}
            most = max((part for part in parts if part != "chip"), key=parts.__getitem__)
            share = parts[most] / sum(parts.values())
            gain = after["images_per_second"] / before["images_per_second"]
            return (
                f"Worth it up to {before['chips']:.0f} chips: doubling them gives {gain:.2f} times the throughput, "
                f"and {share:.0%} of the step goes to {most}."
            )
    return f"Each doubling up to {rows[-1]['chips']:.0f} chips gives at least 1.4 times the throughput."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path)
    options = parser.parse_args()
    compiled = read_results(NAME)
    parts, data = [], {}
    for name, config_name in NETWORKS.items():
        network = count(config_name, compiled)
        data[name] = {"network": dataclasses.asdict(network)}
        parts.append(
            f"### {name}\n\n{network.operations / 1e12:.3f} TFLOP and {network.bytes_per_image / 1e9:.2f} GB per "
            f"image, {network.gradient_bytes / 1e6:.0f} MB of gradients, {network.num_norms} batch norms, "
            f"{network.num_spatial} convolutions larger than 1x1."
        )
        for cluster in CLUSTERS:
            text, rows = table(network, cluster)
            data[name][cluster.name] = rows
            parts.append(f"**{cluster.name}** ({cluster.reason})\n\n{text}")
    write_between(PAGE, "predicted", "\n\n".join(parts))
    assumed = [f"* {name}: {value}, {reason}" for name, (value, reason) in ASSUMED.items()]
    write_between(PAGE, "assumed", "\n".join(assumed))
    if options.output:
        options.output.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
