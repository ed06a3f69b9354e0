"""Data sets of one object, a disc on a ground, whose masks the tests write in every form that people have."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

SIZE = (24, 32)
SaveMask = Callable[[np.ndarray, pathlib.Path], None]


def disc_ids(seed: int, num_objects: int = 1, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Discs of the ids 1, 2, ... side by side."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    ids = np.zeros(size, np.uint8)
    for k in range(num_objects):
        row, column = rng.uniform(0.4, 0.6) * size[0], (k + rng.uniform(0.4, 0.6)) / num_objects * size[1]
        ids[(rows - row) ** 2 + (columns - column) ** 2 < (0.3 * min(size[0], size[1] / num_objects)) ** 2] = k + 1
    return ids


def save_grey(values: np.ndarray, path: pathlib.Path) -> None:
    Image.fromarray(values).save(path)


def write_discs(
    root: pathlib.Path,
    save_mask: SaveMask = save_grey,
    *,
    classes: Sequence[str] | Mapping[str, Any] | None = ("background", "disc"),
    num_objects: int = 1,
    num_images: int = 4,
) -> pathlib.Path:
    """A `folder` with splits 'train' (all but the last image) and 'val'; image i is drawn from seed i.

    Args:
      save_mask: writes class ids in the form that is tried.
      classes: lines of classes.txt, or the content of classes.json; None: neither.
    """
    for part in ("images", "masks", "splits"):
        (root / part).mkdir(parents=True)
    for seed in range(num_images):
        ids = disc_ids(seed, num_objects)
        noise = np.random.default_rng(seed).integers(0, 60, (*SIZE, 3))
        Image.fromarray((noise + 90 * ids[..., None].astype(int)).astype(np.uint8)).save(
            root / "images" / f"{seed}.png"
        )
        save_mask(ids, root / "masks" / f"{seed}.png")
    (root / "splits" / "train.txt").write_text("\n".join(str(seed) for seed in range(num_images - 1)))
    (root / "splits" / "val.txt").write_text(str(num_images - 1))
    if isinstance(classes, Mapping):
        (root / "classes.json").write_text(json.dumps(classes))
    elif classes is not None:
        (root / "classes.txt").write_text("\n".join(classes))
    return root
