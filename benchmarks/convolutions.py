"""Every kind of convolution of the family, in every implementation, compared with PyTorch; docs/performance.md.

    python benchmarks/convolutions.py [--device=cuda] [--dtype=bfloat16] [--only=REGEX] [--minutes=15] [--again]

A fixed list of shapes: those of the networks at 513x513, and one map at rates from 1 to 36, dense and depthwise;
forward and the gradients to the input and to the kernel. One process runs PyTorch (channels last), one this project;
in each round PyTorch and all implementations have a turn. What takes 20 times as long as the fastest is timed once.

At the end the rows of ops/convolution/implementations.py are checked: over the shapes that a row decides, no other
implementation may be faster by a tenth (geometric mean). If one is, the command names it and exits 1: change the row.
Results are stored case by case; if the time runs out, run the command again. Needs torch: pip install torch
"""

from __future__ import annotations

import argparse
import math
import pathlib
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import pairs
from benchmarks.shapes import DIRECTIONS, Shape
from benchmarks.tables import PERFORMANCE, markdown_table, read_results, write_between, write_results
from deeplab_jax.hardware.allocator import TUNABLES

BATCH = 2
RATES = (1, 2, 4, 6, 8, 12, 18, 24, 36)
SHAPES = (
    Shape(513, 513, 3, 64, 7, 2, 1),  # ResNet's stem
    Shape(513, 513, 3, 32, 3, 2, 1),  # MobileNetV2's and Xception's
    Shape(129, 129, 64, 256, 1, 1, 1),
    Shape(129, 129, 256, 512, 1, 2, 1),
    Shape(65, 65, 512, 128, 1, 1, 1),
    Shape(33, 33, 1024, 256, 1, 1, 1),
    Shape(33, 33, 728, 728, 1, 1, 1),
    Shape(257, 257, 16, 96, 1, 1, 1),
    Shape(129, 129, 144, 24, 1, 1, 1),
    Shape(129, 129, 304, 256, 1, 1, 1),
    Shape(129, 129, 64, 64, 3, 1, 1),
    Shape(129, 129, 128, 128, 3, 2, 1),
    Shape(129, 129, 304, 256, 3, 1, 1),  # the decoder
    Shape(65, 65, 512, 512, 3, 1, 4),
    Shape(33, 33, 512, 512, 3, 1, 2),
    *(Shape(33, 33, 2048, 256, 3, 1, rate) for rate in (6, 12, 18)),  # ASPP
    *(Shape(65, 65, 256, 256, 3, 1, rate) for rate in RATES),
    Shape(257, 257, 96, 0, 3, 2, 1),
    Shape(257, 257, 128, 0, 3, 1, 1),
    Shape(129, 129, 144, 0, 3, 1, 1),
    Shape(129, 129, 304, 0, 3, 1, 1),
    Shape(33, 33, 728, 0, 3, 1, 1),
    Shape(33, 33, 960, 0, 3, 1, 2),
    *(Shape(33, 33, 2048, 0, 3, 1, rate) for rate in (6, 12, 18)),
    *(Shape(65, 65, 256, 0, 3, 1, rate) for rate in RATES),
)
TOO_SLOW = 20.0  # times the fastest
ALLOWED = 1.1


def main() -> None:
    options = parse(sys.argv[1:])
    name = f"convolutions_{options.device}"
    results = read_results(name)
    begun = time.monotonic()
    wanted = [] if options.table else list(_cases(options, {} if options.again else results))
    if wanted:
        environment = {"JAX_PLATFORMS": options.device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | TUNABLES
        settings = {"dtype": options.dtype, "batch": BATCH}
        with (
            pairs.Side("benchmarks.convolutions_torch:Convolution", {}, 0, device=options.device, **settings) as theirs,
            pairs.Side("benchmarks.convolutions_ours:Convolution", environment, 0, **settings) as ours,
        ):
            for key, shape, direction in wanted:
                if time.monotonic() - begun > 60 * options.minutes:
                    print(f"{options.minutes:g} minutes are over: run the same command again for the rest")
                    break
                results[key] = measure(shape, direction, ours, theirs) | {"dtype": options.dtype}
                results[key] |= {"device": ours.call("device"), **pairs.machine(("jax", "jaxlib", "torch"))}
                print(f"{key}: {described(results[key], '')}", flush=True)
                write_results(name, results)
    rows = deciding_rows(results, options.device)
    write_between(PERFORMANCE, name, table(results, rows))
    slow = slower_rows(results, rows)
    print("\n".join(slow) or "the table's choices are the quickest, or within a tenth")
    raise SystemExit(1 if slow else 0)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", default="", help="regular expression of cases, as 'depthwise.* kernel'")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true", help="only write the table")
    return parser.parse_args(arguments)


def _cases(options: argparse.Namespace, known: Mapping[str, Any]) -> Iterator[tuple[str, Shape, str]]:
    for shape in SHAPES:
        for direction in DIRECTIONS:
            key = f"{shape.name}, {direction}, {options.dtype}"
            if re.search(options.only, key) and key not in known:
                yield key, shape, direction


def measure(shape: Shape, direction: str, ours: pairs.Side, theirs: pairs.Side) -> dict[str, Any]:
    """Times of one shape in one direction."""
    theirs.call("prepare", shape, direction)
    once: dict[str, float] = ours.call("prepare", shape, shape.kind + DIRECTIONS[direction])
    names = [name for name in once if once[name] <= TOO_SLOW * min(once.values())]
    sides = [lambda: theirs.call("turn"), *(lambda name=name: ours.call("turn", name) for name in names)]
    peer, *own = pairs.take_turns(sides, max_seconds=0.0)
    ratios = {name: pairs.paired_ratio(times, peer)._asdict() for name, times in zip(names, own, strict=True)}
    return {
        "shape": list(shape),
        "direction": direction,
        "peer_seconds": pairs.spread(peer).median,
        "ratios": ratios,
        "too_slow_seconds": {name: seconds for name, seconds in once.items() if name not in names},
    }


def described(entry: Mapping[str, Any], chosen: str) -> str:
    """'taps **0.80** (0.79-0.82); lax 3.10': ratio to PyTorch of the chosen one, then of the others."""
    ratios = {name: each["median"] for name, each in entry["ratios"].items()}
    ratios |= {name: seconds / entry["peer_seconds"] for name, seconds in entry["too_slow_seconds"].items()}
    first = [f"{chosen} {pairs.shown_ratio(entry['ratios'][chosen])}"] if chosen in entry["ratios"] else []
    others = [f"{name} {ratio:.3g}" for name, ratio in sorted(ratios.items(), key=lambda i: i[1])]
    return "; ".join([*first, *(each for each in others if not first or each.split(" ")[0] != chosen)])


def deciding_rows(results: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Key of the results -> the row of the current table that decides it."""
    import jax  # not at the top: the parent of two measured processes does without it

    from deeplab_jax.ops.convolution.geometry import geometry_of
    from deeplab_jax.ops.convolution.implementations import deciding_row

    rows = {}
    for key, entry in results.items():
        shape = Shape(*entry["shape"])
        features = (shape.channels, shape.features) if shape.features else (1, shape.channels)
        x = jax.ShapeDtypeStruct((BATCH, shape.height, shape.width, shape.channels), entry["dtype"])
        kernel = jax.ShapeDtypeStruct((shape.taps, shape.taps, *features), entry["dtype"])
        geometry = geometry_of(x, kernel, (shape.stride,) * 2, (shape.rate,) * 2, "symmetric")
        rows[key] = deciding_row(device, shape.kind + DIRECTIONS[entry["direction"]], x, kernel, geometry)
    return rows


def slower_rows(results: Mapping[str, Any], rows: Mapping[str, Any]) -> list[str]:
    """One line per row of the table over whose shapes another implementation is faster by more than a tenth."""
    decided: dict[Any, list[Mapping[str, Any]]] = {}
    for key, entry in results.items():
        if entry["dtype"] == "float32":
            decided.setdefault(rows[key], []).append(entry)
    lines = []
    for row, entries in decided.items():
        timed = set.intersection(*({*each["ratios"]} for each in entries))
        if row.implementation not in timed:
            lines.append(f"{row}: another is {TOO_SLOW:g} times as quick somewhere")
            continue
        own = mean_ratio(entries, row.implementation)
        for name in sorted(timed):
            if own > ALLOWED * mean_ratio(entries, name):
                lines.append(f"{row}: {name} is {own / mean_ratio(entries, name):.2f} times as quick")
    return lines


def mean_ratio(entries: list[Mapping[str, Any]], name: str) -> float:
    """The geometric mean of an implementation's ratios to the peer."""
    return math.exp(sum(math.log(each["ratios"][name]["median"]) for each in entries) / len(entries))


def table(results: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    if not results:
        return "Not measured yet."
    header = ("convolution", "direction", "precision", "PyTorch, ms:", "ours / PyTorch; others")
    lines = [
        (
            Shape(*each["shape"]).name,
            each["direction"],
            each["dtype"],
            f"{1000 * each['peer_seconds']:.2f}",
            described(each, rows[key].implementation),
        )
        for key, each in results.items()
    ]
    return "\n".join([markdown_table(header, lines), "", *pairs.settings(results.values())])


if __name__ == "__main__":
    main()
