"""Compares the fully connected CRF with pydensecrf on CPU, in one run; writes a table of docs/crf.md.

    python benchmarks/dense_crf.py [--image FILE ...] [--num_rounds=7] [--cores 1 2] [--dry]

500x375 pixels, 21 classes, 10 iterations, with the parameters of several papers. Without --image a photo is
synthesised from regions and noise with a photo's spectrum. The unary term is a blurred guess of its regions. pydensecrf
always runs on one thread; each number of cores gets a process of its own, bound to them. Rounds of the two are
interleaved; ratios are of medians of wall time and of CPU time (on a busy machine, use the latter). Building lattices
and filtering are timed separately: the peer's 'build' is addPairwiseGaussian and addPairwiseBilateral; ours builds the
position lattice once per image size, which 'first' includes. Needs pydensecrf2, which the project itself does not.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import crf_page
import numpy as np
from dense_crf_cases import (
    HEIGHT,
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

ON_CORES = "DENSE_CRF_BENCHMARK_CORES"  # set for the processes that measure


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--image", nargs="*", type=pathlib.Path, default=[])
    arguments.add_argument("--presets", nargs="*", default=PRESET_NAMES)
    arguments.add_argument("--num_rounds", type=int, default=7)
    arguments.add_argument("--cores", nargs="*", type=int, default=[1, 2])
    arguments.add_argument("--dry", action="store_true", help="print the table, write nothing")
    options = arguments.parse_args()
    if ON_CORES in os.environ:
        rows = [
            _measure(name, index, image, options.num_rounds)
            for name in options.presets
            for index, image in enumerate(load_images(options.image))
        ]
        print(json.dumps({"rows": rows, "versions": versions()}))
        return
    results = [_in_process_of(cores) for cores in options.cores]
    if options.dry:
        print("\n".join(_table(results)))
    else:
        crf_page.publish("dense_crf_cpu", results, _table(results))


def _in_process_of(cores: int) -> dict:
    """Runs this program again, bound to some cores before any library counts them."""
    command = [sys.executable, *sys.argv]
    environment = os.environ | {ON_CORES: str(cores), "JAX_PLATFORMS": "cpu"}
    bound = sorted(os.sched_getaffinity(0))[:cores]
    output = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, bound)
    ).stdout
    return {"cores": cores, **json.loads(output.splitlines()[-1])}


def _measure(name: str, index: int, image: np.ndarray, num_rounds: int) -> dict:
    """Medians of both sides' seconds for a preset and an image."""
    from deeplab_jax.ops.crf import filters as crf_filters
    from deeplab_jax.ops.crf.mean_field import mean_field
    from deeplab_jax.ops.crf.parameters import crf_preset

    params, unary = crf_preset(name).params, opinion(image)
    stages: list[tuple[float, float]] = []

    def ours() -> np.ndarray:
        return np.asarray(mean_field(unary, image, params, num_iterations=NUM_ITERATIONS))

    def first() -> np.ndarray:
        crf_filters.whole_position_on_host.cache_clear()
        return ours()

    def build() -> None:
        crf_filters.bilateral_on_host(image, params, None, HEIGHT * WIDTH)

    def build_position() -> None:
        crf_filters.whole_position_on_host.cache_clear()
        crf_filters.position_on_host((HEIGHT, WIDTH), params, None, HEIGHT * WIDTH)

    def peer() -> np.ndarray:
        marginals, seconds = run_peer(unary, image, params)
        stages.append(seconds)
        return marginals

    sides = {"ours": ours, "first": first, "build": build, "build position": build_position, "peer": peer}
    times, marginals = interleave(sides, num_rounds)
    wall, cpu = medians(times)
    got, want = marginals["ours"], marginals["peer"]
    return {
        "preset": name,
        "image": index,
        "vertices": int(crf_filters.bilateral_on_host(image, params, None, HEIGHT * WIDTH).num_vertices),
        "wall": wall,
        "cpu": cpu,
        "peer stages": [statistics.median(stage) for stage in zip(*stages, strict=True)],
        "largest difference": float(np.abs(got - want).max()),
        "labels equal": float((got.argmax(-1) == want.argmax(-1)).mean()),
    }


def _table(results: list[dict]) -> list[str]:
    """Seconds of both sides, separately for lattices and the rest, and the ratios of the totals."""
    lines = [
        "| cores | preset | image | vertices | peer: build + inference, s | ours: build + rest, s | ours / peer, wall "
        "| including the position lattice | CPU time | largest difference |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for row in result["rows"]:
            wall, cpu = row["wall"], row["cpu"]
            peer, own = row["peer stages"], (wall["build"], wall["ours"] - wall["build"])
            lines.append(
                f"| {result['cores']} | {row['preset']} | {row['image']} | {row['vertices']:,} "
                f"| {peer[0]:.2f} + {peer[1]:.2f} | {own[0]:.2f} + {own[1]:.2f} "
                f"| **{wall['ours'] / wall['peer']:.2f}** | {wall['first'] / wall['peer']:.2f} "
                f"| {cpu['ours'] / cpu['peer']:.2f} | {row['largest difference']:.0e} |"
            )
    about = ", ".join(f"{name} {version}" for name, version in results[0]["versions"].items())
    return [*lines, "", f"Environment: {about}."]


if __name__ == "__main__":
    main()
