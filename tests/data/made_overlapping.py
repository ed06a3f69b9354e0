"""Data sets of classes that overlap, whose masks the tests write in every form that people have."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image

CLASSES = ("car", "red car", "wheel")
SIZE = (12, 17)
WriteMasks = Callable[[np.ndarray, pathlib.Path, str], None]  # (planes of 0 and 1, masks/, the image's name)


def make_planes(seed: int, num_classes: int = len(CLASSES)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (*SIZE, num_classes), dtype=np.uint8)


def write_overlapping(root: pathlib.Path, write_masks: WriteMasks, num_images: int = 3, **fields: Any) -> pathlib.Path:
    """A multilabel `folder` with splits 'train' (all but the last image) and 'val'; image i is drawn from seed i."""
    for part in ("images", "masks", "splits"):
        (root / part).mkdir(parents=True)
    (root / "classes.json").write_text(json.dumps({"class_names": CLASSES, "task": "multilabel", **fields}))
    for seed in range(num_images):
        pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"n{seed}.png")
        write_masks(make_planes(seed), root / "masks", f"n{seed}")
    (root / "splits" / "train.txt").write_text("\n".join(f"n{seed}" for seed in range(num_images - 1)))
    (root / "splits" / "val.txt").write_text(f"n{num_images - 1}")
    return root


def save(values: np.ndarray, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def file_per_class(planes: np.ndarray, masks: pathlib.Path, name: str) -> None:
    for plane, class_name in zip(np.moveaxis(planes, -1, 0), CLASSES, strict=True):
        save(plane * 255, masks / f"{name}_{class_name.replace(' ', '_')}.png")


def folder_per_class(planes: np.ndarray, masks: pathlib.Path, name: str) -> None:
    for plane, class_name in zip(np.moveaxis(planes, -1, 0), CLASSES, strict=True):
        save(plane, masks / class_name / f"{name}.png")


def folder_per_image(planes: np.ndarray, masks: pathlib.Path, name: str) -> None:
    for plane, class_name in zip(np.moveaxis(planes, -1, 0), CLASSES, strict=True):
        Image.fromarray(plane * 255).convert("1").save(_in(masks / name) / f"{class_name}.png")


def array_file(planes: np.ndarray, masks: pathlib.Path, name: str) -> None:
    np.save(masks / f"{name}.npy", planes.astype(bool))


def tiff_channels(planes: np.ndarray, masks: pathlib.Path, name: str) -> None:
    import tifffile

    tifffile.imwrite(masks / f"{name}.tif", planes * 255, photometric="minisblack", planarconfig="contig")


def png_channels(planes: np.ndarray, masks: pathlib.Path, name: str) -> None:
    cv2.imwrite(str(masks / f"{name}.png"), planes[..., ::-1] * 255)


def _in(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    return folder
