"""Small image and mask files that the tests make."""

from __future__ import annotations

import json
import pathlib

import numpy as np
from PIL import Image

CLASS_NAMES = ["ground", "house", "tree"]


def write_image(path: pathlib.Path, size: tuple[int, int] = (20, 30), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_ids(size: tuple[int, int] = (20, 30), seed: int = 0, num_classes: int = 3) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(0, num_classes, size, dtype=np.uint8)
    ids[:2] = 255
    return ids


def write_mask(path: pathlib.Path, ids: np.ndarray) -> None:
    """As a palette PNG whose colours have nothing to do with the ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    picture.putpalette([level for index in range(256) for level in (255 - index, index // 2, 7)])
    picture.save(path)


def write_folder(root: pathlib.Path, names: list[str], lists: dict[str, list[str]] | None = None) -> pathlib.Path:
    """A data set of the form `folder`; image and mask of the i-th name are drawn from seed i."""
    for seed, name in enumerate(names):
        write_image(root / "images" / f"{name}.png", seed=seed)
        write_mask(root / "masks" / f"{name}.png", make_ids(seed=seed))
    (root / "classes.json").write_text(json.dumps({"class_names": CLASS_NAMES}))
    for split, members in (lists or {}).items():
        path = root / "splits" / f"{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{member}\n" for member in members))
    return root


def pixels(path: pathlib.Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))
