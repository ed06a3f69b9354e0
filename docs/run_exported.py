"""Segments a photo with an exported file, without this project: run_exported.py model.stablehlo IN.jpg OUT.png"""

import json
import pathlib
import sys

import jax.export
import numpy as np
from PIL import Image

path, photo, mask = sys.argv[1:]
network = jax.export.deserialize(bytearray(pathlib.Path(path).read_bytes()))
about = json.loads(pathlib.Path(f"{path}.json").read_text())
pixels = np.asarray(Image.open(photo).convert("RGB"))
result = Image.fromarray(np.asarray(network.call(pixels[None])["class_ids"][0]))
result.putpalette([value for color in about["palette"] for value in color])
result.save(mask)
