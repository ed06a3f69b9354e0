"""Evaluation of a folder of images, from files to mean IoU, against a PyTorch script; docs/performance.md.

    python benchmarks/evaluate_folder.py [--root=FOLDER --split=val --size=368,480] [--network=v3plus_mobilenet_v2]

Without --root 64 images of 500x375 are synthesised. Two processes alternate (benchmarks/pairs.py), each with a pass
over the split: the peer is a typical script (a DataLoader with one worker per core, Pillow, channels last, bincount),
ours the code of --mode=evaluate with the network imported from the peer's weights. Both pad to the same size. The first
pass, which compiles and starts workers, is not counted; its confusion matrices must agree up to ties.

Needs what the project itself does not: pip install torch torchvision segmentation-models-pytorch
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks import pairs
from benchmarks.input_pipeline import CASES, PAD_PIXEL, make_files
from benchmarks.networks import PACKAGES, PEERS
from benchmarks.tables import PERFORMANCE, markdown_table, read_results, write_between, write_results
from deeplab_jax.data.sources import class_files, find_pairs
from deeplab_jax.hardware.allocator import TUNABLES

ALLOWED = 0.005  # share of the pixels that may be counted differently in float32: ties


def main() -> None:
    options = parse(sys.argv[1:])
    name = f"evaluation_{options.device}"
    results = read_results(name)
    if not options.table:
        with tempfile.TemporaryDirectory() as temporary:
            entry = measure(options, pathlib.Path(temporary))
        key = "{images} images of {data} {network} {batch_size} {dtype}".format(**entry)
        results[key] = entry
        print(f"{key}: ours / torch {pairs.shown_ratio(entry['ratio'])}")
        if not options.dry:
            write_results(name, results)
    if options.dry:
        print(table(results))
    else:
        write_between(PERFORMANCE, name, table(results))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, help="data set of the form 'folder'; default: made up")
    parser.add_argument("--split", default="val", help="of --root")
    networks = [name for name, peer in PEERS.items() if not peer.config]
    parser.add_argument("--network", choices=networks, default="v3plus_mobilenet_v2")
    parser.add_argument("--size", type=_size, default=(384, 512), help="HEIGHT,WIDTH to which images are padded")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--num_workers", type=int, default=len(os.sched_getaffinity(0)), help="of the DataLoader")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--cores", type=int, default=0, help="to which both processes are bound; 0: all")
    parser.add_argument("--seconds", type=float, default=120.0, help="of measuring")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    return parser.parse_args(arguments)


def _size(text: str) -> tuple[int, int]:
    height, width = map(int, text.split(","))
    return height, width


def measure(options: argparse.Namespace, temporary: pathlib.Path) -> dict[str, Any]:
    """The entry of the results for these options; `temporary` is for files."""
    root, split = options.root, options.split
    if root is None:
        root, split = temporary / "made", "train"
        root.mkdir()
        make_files(root, CASES["voc"])
    samples = find_pairs.find_splits(root).splits[split]
    num_classes = len(class_files.read_classes(root).names)
    peer, weights = PEERS[options.network], temporary / "weights.npz"
    number = "num_classes" if "num_classes" in peer.arguments else "classes"
    shared = {"size": options.size, "batch_size": options.batch_size, "dtype": options.dtype}
    environment = {"JAX_PLATFORMS": options.device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | TUNABLES
    with contextlib.ExitStack() as stack:
        theirs = pairs.Side(
            "benchmarks.evaluation_torch:Evaluation",
            {},
            options.cores,
            factory=peer.factory,
            arguments={**peer.arguments, number: num_classes},
            normalization=peer.normalization,
            files=[(str(sample.image), str(sample.mask)) for sample in samples],
            num_classes=num_classes,
            pad_pixel=PAD_PIXEL,
            num_workers=options.num_workers,
            device=options.device,
            **shared,
        )
        stack.enter_context(theirs)
        theirs.call("save_weights", str(weights))
        ours = pairs.Side(
            "benchmarks.evaluation_ours:Evaluation",
            environment,
            options.cores,
            weights=str(weights),
            root=str(root),
            prepared_dir=str(temporary / "prepared"),
            split=split,
            **shared,
        )
        stack.enter_context(ours)
        differing = differing_share(*(side.call("confusion") for side in (ours, theirs)))
        if options.dtype == "float32" and options.device == "cpu" and differing > ALLOWED:
            raise SystemExit(f"error: the two count {differing:.2%} of the pixels differently")
        for side in (ours, theirs):
            side.call("reset_memory")
        times = pairs.take_turns([lambda: ours.call("turn"), lambda: theirs.call("turn")], max_seconds=options.seconds)
        return {
            "data": "made up" if options.root is None else f"{root.resolve().name} {split}",
            "images": len(samples),
            "network": options.network,
            **shared,
            "num_workers": options.num_workers,
            **pairs.comparison(*times),
            "memory_bytes": {"ours": ours.call("memory"), "peer": theirs.call("memory")},
            "differing_share": differing,
            "device": ours.call("device"),
            **pairs.machine(PACKAGES, options.cores),
        }


def differing_share(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The share of pixels that two confusion matrices count in different places, at least."""
    if ours.sum() != theirs.sum():
        raise SystemExit(f"error: {ours.sum()} pixels were counted here and {theirs.sum()} there")
    return float(np.abs(ours - theirs).sum() / 2 / ours.sum())


def table(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    if not results:
        return "Not measured yet."
    header = (
        "images",
        "network",
        "batch",
        "precision",
        "ours, images/s:",
        "PyTorch, images/s:",
        "ours / PyTorch, time:",
    )
    rows = [
        (
            f"{each['images']}, {each['data']}, padded to {each['size'][0]}x{each['size'][1]}",
            PEERS[each["network"]].title,
            each["batch_size"],
            each["dtype"],
            f"{each['images'] / each['seconds']['ours']:.1f}",
            f"{each['images'] / each['seconds']['peer']:.1f}",
            pairs.shown_ratio(each["ratio"]),
            f"{each['differing_share']:.4%}",
            f"{each['memory_bytes']['ours'] / 1e9:.2f}",
            f"{each['memory_bytes']['peer'] / 1e9:.2f}",
        )
        for each in results.values()
    ]
    lines = markdown_table((*header, "counted differently:", "ours, GB:", "PyTorch's, GB:"), rows)
    return "\n".join([lines, "", *pairs.settings(results.values())])


if __name__ == "__main__":
    main()
