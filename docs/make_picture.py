"""Makes the README's picture from the report of a run: image, truth, prediction and errors of three images.

python docs/make_picture.py --report=runs/quickstart/report.html --output=docs/images/quickstart.png
"""

from __future__ import annotations

import argparse
import base64
import io
import pathlib
import re
import sys

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from deeplab_jax.visualize import grid

_PANEL = re.compile(r'src="data:image/jpeg;base64,([^"]+)" alt="(\w+) of')


def read_rows(html: str) -> list[list[np.ndarray]]:
    """The report's images, one row per sample: the best first, then the worst."""
    rows: list[list[np.ndarray]] = []
    for data, panel in _PANEL.findall(html):
        if panel == "image":
            rows.append([])
        rows[-1].append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=pathlib.Path, default="runs/quickstart/report.html")
    parser.add_argument("--output", type=pathlib.Path, default="docs/images/quickstart.png")
    arguments = parser.parse_args()
    rows = read_rows(arguments.report.read_text())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(grid([rows[0], rows[1], rows[-1]], gap=6))
    picture.quantize(256).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
