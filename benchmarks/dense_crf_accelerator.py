"""The fully connected CRF on an accelerator and pydensecrf on its host: images/s, memory, share of the byte limit.

    python benchmarks/dense_crf_accelerator.py [--image FILE ...] [--batch_size=16] [--num_rounds=7] [--dry]

A batch of 500x375 images with 21 classes and 10 iterations, lattices built in the program. The byte limit of a filter
is the time to read and write its tables, its input and each stage's result once, at the rate of a plain copy on the
same device. Writes a table of docs/crf.md. Needs pydensecrf2 for the other side.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import crf_page
import jax
import numpy as np
from dense_crf_cases import (
    HEIGHT,
    NUM_CLASSES,
    NUM_ITERATIONS,
    PRESET_NAMES,
    WIDTH,
    interleave,
    load_images,
    medians,
    opinion,
    run_peer,
    versions,
)

from deeplab_jax.ops.crf import filters as crf_filters
from deeplab_jax.ops.crf.mean_field import mean_field_batch
from deeplab_jax.ops.crf.parameters import CRFParams, crf_preset
from deeplab_jax.ops.crf.permutohedral import Lattice, filter_lattice

NUM_BY_PEER = 2  # images of the batch that the peer gets: it takes about a second for each
NUM_REPEATS = 50  # of a filter


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--image", nargs="*", type=pathlib.Path, default=[])
    arguments.add_argument("--presets", nargs="*", default=PRESET_NAMES)
    arguments.add_argument("--batch_size", type=int, default=16)
    arguments.add_argument("--num_rounds", type=int, default=7)
    arguments.add_argument("--dry", action="store_true", help="print the table, write nothing")
    options = arguments.parse_args()

    photos = load_images(options.image)
    images = np.stack([np.roll(photos[k % len(photos)], 31 * k, axis=1) for k in range(options.batch_size)])
    unary = np.stack([opinion(image) for image in images])
    limit = _copy_rate()
    result = {
        "device": jax.devices()[0].device_kind,
        "batch_size": options.batch_size,
        "copied bytes per second": limit,
        "rows": [_measure(name, images, unary, limit, options.num_rounds) for name in options.presets],
        "versions": versions(),
    }
    if options.dry:
        print("\n".join(_table(result)))
    else:
        crf_page.publish("dense_crf_accelerator", result, _table(result))


def _measure(name: str, images: np.ndarray, unary: np.ndarray, limit: float, num_rounds: int) -> dict:
    """Rates of both sides for a preset, peak memory, and how close the filters come to the limit."""
    params = crf_preset(name).params
    on_device = jax.device_put((unary, images))

    def ours() -> jax.Array:
        run = mean_field_batch(*on_device, params, num_iterations=NUM_ITERATIONS, filtering="program")
        return run.block_until_ready()

    def peer() -> np.ndarray:
        return np.stack([run_peer(u, i, params)[0] for u, i in zip(unary[:NUM_BY_PEER], images, strict=False)])

    times, marginals = interleave({"ours": ours, "peer": peer}, num_rounds)
    wall, _ = medians(times)
    same = np.asarray(marginals["ours"][:NUM_BY_PEER]).argmax(-1) == marginals["peer"].argmax(-1)
    return {
        "preset": name,
        "images per second": {"ours": len(images) / wall["ours"], "peer": NUM_BY_PEER / wall["peer"]},
        "peak bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "share of the byte limit": _shares(params, images[0], unary[0], limit),
        "labels equal": float(same.mean()),
    }


def _shares(params: CRFParams, image: np.ndarray, unary: np.ndarray, limit: float) -> dict[str, float]:
    """For each filter: the time its bytes need at the rate of a copy, over the time it takes."""
    lattices = {
        "position": crf_filters.position_on_host((HEIGHT, WIDTH), params, None, HEIGHT * WIDTH),
        "bilateral": crf_filters.bilateral_on_host(image, params, None, HEIGHT * WIDTH),
    }

    @jax.jit
    def repeated(lattice: Lattice, values: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, NUM_REPEATS, lambda _, x: filter_lattice(lattice, x), values)

    shares = {}
    for kernel, lattice in lattices.items():
        seconds = _seconds(functools.partial(repeated, *jax.device_put((lattice, unary.reshape(-1, NUM_CLASSES)))))
        shares[kernel] = _filter_bytes(lattice) * NUM_REPEATS / seconds / limit
    return shares


def _copy_rate() -> float:
    """Bytes read and written per second by adding one to a large array."""
    array = jax.device_put(np.zeros(2**28, np.float32))
    add = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda _, x: x + 1, x))
    return 20 * 2 * array.nbytes / _seconds(functools.partial(add, array))


def _seconds(run: functools.partial) -> float:
    run().block_until_ready()
    start = time.perf_counter()
    run().block_until_ready()
    return time.perf_counter() - start


def _filter_bytes(lattice: Lattice) -> int:
    """What one filter must move if each stage reads its tables and its input once, and writes its result once."""
    tables = (lattice.fan_in, lattice.forward, lattice.vertex, lattice.neighbours)
    num_points, num_rows = lattice.vertex.shape[0], lattice.fan_in.first.shape[0]
    levels = [lattice.fan_in.chunks.shape[0], *(table.shape[0] for table in lattice.fan_in.upper)]
    splat = 2 * num_points + 2 * sum(levels) + num_rows
    blur = 2 * num_rows * len(lattice.neighbours)
    rows = splat + blur + num_rows + num_points
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tables)) + 4 * NUM_CLASSES * rows


def _table(result: dict) -> list[str]:
    lines = [
        f"{result['device']}, batch of {result['batch_size']}, copies at "
        f"{result['copied bytes per second'] / 1e12:.2f} TB/s.",
        "",
        "| preset | images/s | the peer's | ratio | peak GiB | of byte limit: position, colour | labels equal |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        rates, shares = row["images per second"], row["share of the byte limit"]
        lines.append(
            f"| {row['preset']} | {rates['ours']:.1f} | {rates['peer']:.2f} | **{rates['ours'] / rates['peer']:.0f}** "
            f"| {(row['peak bytes'] or 0) / 2**30:.2f} | {shares['position']:.0%}, {shares['bilateral']:.0%} "
            f"| {100 * row['labels equal']:.3f} % |"
        )
    about = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return [*lines, "", f"There: {about}."]


if __name__ == "__main__":
    main()
