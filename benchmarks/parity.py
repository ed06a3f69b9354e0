"""Imported networks beside the systems that their weights come from; writes docs/parity.md.

    python benchmarks/parity.py [--only=PATTERN] [--resume] [--output=FILE.md]

Each installed peer gets drawn weights and statistics and runs on drawn images; the same weights are written to a file
and imported, and both run on the CPU in float32. Of systems that cannot be installed the names alone are compared,
one to one. Needs the peers, which the project itself does not: torch, torchvision, timm, transformers,
segmentation_models_pytorch. With --only nothing is written. The page is written row by row: --resume keeps the rows
that it has of the installed versions.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator

sys.path.extend(
    str(pathlib.Path(__file__).resolve().parent.parent / folder)
    for folder in (".", "tests", "tests/parity", "tests/weights/layouts")
)

import jax
import numpy as np
import test_foreign_layouts
from both_sides import drawn_arrays, our_output, peer_output, peer_shapes
from drawn_arrays import drawn_images
from parity_cases import CASES

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "parity.md"
SQUARE = (256, 256)  # beside the sizes that the tests have
HEADER = """\
# Parity

Whether a network that was imported here is the network that its weights come from. The tables are written by
`python benchmarks/parity.py`; change nothing by hand.

## Same weights, same images

Weights and batch norm's statistics follow from each array's name and shape (`tests/parity/drawn_arrays.py`); they keep
the variance of activations, so that an error in the first layer is still seen in the last. The peer gets them as its
state dict; here they come from a file whose layout is recognised. Then both run on the same images, each with its own
normalisation. *Error*: the largest difference of any value, over the standard deviation of the peer's; float32 on the
CPU. The tests allow 1e-4, and want more than 1e-3 wherever one convention is changed
(`tests/parity/test_conventions.py`).
"""
NUMBERS = (
    "| layout | network | compared | peer | images | error |",
    "|---|---|---|---|---|---|",
)
NAMES = """
segmentation_models.pytorch takes multiples of the output stride alone, hence its even sizes with odd numbers of cells.
VGG-16 is compared where nothing is odd: its 2x2 poolings drop the odd row that ours keep. *Scores* are logits at the
head's stride, where transformers' networks end. timm's ResNets have torchvision's names and are of that layout.

## Names alone

Systems that cannot be installed beside the others. Every array of their file has its place here and every place its
array, by name and shape, the names being written down from the systems' sources
(`tests/weights/layouts/test_foreign_layouts.py`). The folded TF-slim and the GluonCV file of MobileNetV2 are compared
with recorded features besides (`tests/weights/test_mobilenet_v2.py`).

| layout | network | arrays |
|---|---|---|
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="", help="regular expression of networks")
    arguments.add_argument("--output", type=pathlib.Path, default=PAGE)
    arguments.add_argument("--resume", action="store_true")
    options = arguments.parse_args()

    versions = f"\nHere: jax {jax.__version__}, torch {importlib.metadata.version('torch')}.\n"
    text = options.output.read_text() if options.resume and options.output.is_file() else ""
    known = text.splitlines() if versions in text else []
    names, numbers = list(_name_rows(options.only)), []
    for row in _number_rows(options.only, known):
        numbers.append(row)
        if not options.only:
            page = HEADER + versions + "\n" + "\n".join((*NUMBERS, *numbers)) + "\n" + NAMES + "\n".join(names) + "\n"
            options.output.write_text(page)


def _number_rows(pattern: str, known: list[str]) -> Iterator[str]:
    """A row for each network of an installed peer; one of the known, where it is of this network and version."""
    for name, case in CASES.items():
        if not re.search(pattern, name):
            continue
        sizes = (*case.sizes, SQUARE)
        compared = case.output.replace("_", " ")
        version = f"{case.package} {importlib.metadata.version(case.package)}"
        images_text = ", ".join(f"{height}x{width}" for height, width in sizes)
        network = name.partition("_")[2]
        start = f"| `{case.layout}` | {network} | {compared} | {version} | {images_text} |"
        if found := next((row for row in known if row.startswith(start)), ""):
            yield found
            continue
        peer = case.build()
        arrays = drawn_arrays(case, peer_shapes(peer))
        theirs = peer_output(case, peer, arrays)
        with tempfile.TemporaryDirectory() as folder:
            ours = our_output(case, arrays, pathlib.Path(folder), "")
        error = 0.0
        for size in sizes:
            images = drawn_images(name, size)
            expected = theirs(images)
            error = max(error, float(np.abs(ours(images) - expected).max() / expected.std()))
        yield _shown(f"{start} {error:.1e} |")


def _name_rows(pattern: str) -> Iterator[str]:
    """A row for each network whose names are written down; AssertionError where one has no place."""
    for name in (*test_foreign_layouts.NETWORKS, *test_foreign_layouts.BACKBONES):
        if not re.search(pattern, name):
            continue
        test_foreign_layouts.test_every_name_has_its_place_and_every_place_its_name(name)
        layout, shapes, _ = test_foreign_layouts.CASES[name]
        yield _shown(f"| `{layout}` | {name} | {len(shapes)} |")


def _shown(row: str) -> str:
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
