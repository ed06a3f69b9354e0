"""Finds which image belongs to which mask in a folder, and which split they are in."""

from __future__ import annotations

import hashlib
import pathlib

from deeplab_jax.data.sources.samples import Sample, find_images, image_name, list_samples, read_list
from deeplab_jax.types import UserError


def find_splits(folder: pathlib.Path) -> dict[str, list[Sample]]:
    """Split name -> samples, as described in datasets/folder.py.

    Raises:
      UserError: if there is no image at all.
    """
    images, masks = folder / "images", folder / "masks"
    lists = sorted((folder / "splits").glob("*.txt"))
    if lists:
        return {path.stem: list_samples(map(image_name, read_list(path)), images, masks) for path in lists}
    pairs = {path.name: (path, masks / path.name) for path in _folders(images) if (masks / path.name).is_dir()}
    pairs |= {path.name: (path / "images", path / "masks") for path in _folders(folder) if (path / "masks").is_dir()}
    if pairs:
        return {split: _all_samples(*pair) for split, pair in pairs.items()}
    samples = sorted(_all_samples(images, masks), key=lambda sample: hashlib.sha256(sample.name.encode()).digest())
    if not samples:
        raise UserError(f"{images}: holds no image; put images there and their masks, under the same names, in {masks}")
    return {
        "train": [sample for index, sample in enumerate(samples) if index % 5],
        "val": samples[::5],
    }


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _all_samples(images: pathlib.Path, masks: pathlib.Path) -> list[Sample]:
    return list_samples(find_images(images), images, masks)
