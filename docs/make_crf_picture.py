"""Makes a picture of what a CRF changes: one row per image, with the image and several predictions.

    python docs/make_crf_picture.py --images PHOTO ... --predictions FOLDER ... --output=docs/images/crf.jpg

The folders are outputs of --mode=predict: without a CRF, with one, ...
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from deeplab_jax.visualize import grid, overlay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", type=pathlib.Path, required=True)
    parser.add_argument("--predictions", nargs="+", type=pathlib.Path, required=True, help="folders of them")
    parser.add_argument("--height", type=int, default=240, help="of a row")
    parser.add_argument("--output", type=pathlib.Path, default="docs/images/crf.jpg")
    arguments = parser.parse_args()
    rows = [read_row(path, arguments.predictions, arguments.height) for path in arguments.images]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid(rows, gap=6)).save(arguments.output, quality=88, optimize=True)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1024:.0f} KB")


def read_row(path: pathlib.Path, folders: list[pathlib.Path], height: int) -> list[np.ndarray]:
    """The image, and the image tinted by each folder's prediction of it."""
    image = np.asarray(Image.open(path).convert("RGB"))
    panels = [image]
    for folder in folders:
        with Image.open(folder / f"{path.stem}.png") as ids:
            palette = np.array(ids.getpalette()).reshape(-1, 3)
            panels.append(overlay(image, np.asarray(ids), [tuple(color) for color in palette]))
    width = round(image.shape[1] * height / image.shape[0])
    return [np.asarray(Image.fromarray(panel).resize((width, height), Image.Resampling.LANCZOS)) for panel in panels]


if __name__ == "__main__":
    main()
