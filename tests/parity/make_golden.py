"""Writes the golden files of the peers that are installed.

    python tests/parity/make_golden.py [NAME ...]

Needs the peers, which neither the project nor its tests do: torch, torchvision, timm, transformers,
segmentation_models_pytorch. The files say with which versions they were made.
"""

from __future__ import annotations

import importlib.metadata
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

import golden_files
from both_sides import drawn_arrays, peer_output, peer_shapes
from drawn_arrays import drawn_images
from parity_cases import CASES


def main(names: list[str]) -> None:
    """Makes the named files, or all."""
    for name in names or CASES:
        case = CASES[name]
        peer = case.build()
        shapes = peer_shapes(peer)
        forward = peer_output(case, peer, drawn_arrays(case, shapes))
        outputs = {size: golden_files.sample(name, size, forward(drawn_images(name, size))) for size in case.sizes}
        versions = {package: importlib.metadata.version(package) for package in (case.package, "torch")}
        what = name.partition("_")[2]
        path = golden_files.write(name, golden_files.Golden(case.layout, what, versions, shapes, outputs))
        print(f"{path.name}: {len(shapes)} names, {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main(sys.argv[1:])
