"""Data sets of other images than RGB bytes that the tests write, as files of the form `folder`."""

from __future__ import annotations

import json
import pathlib

import cv2
import numpy as np
import tifffile
from made_files import write_mask

SIZE = (24, 36)
NAMES = ("a", "b", "c", "d")
CONTIGUOUS: dict[int, dict] = {2: {}, 3: {"planarconfig": "contig"}}  # by the number of an image's axes


def make_bands(seed: int, channels: int, dtype: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Channel k has a mean of about 100 (k + 1); floats have NaN in the top left corner."""
    rng = np.random.default_rng(seed)
    means = 100.0 * np.arange(1, channels + 1)
    image = (means + 20 * rng.standard_normal((*size, channels))).clip(0).astype(dtype)
    if dtype == "float32":
        image[:3, :4] = np.nan
    return image


def make_bright_ids(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return (np.random.default_rng(seed + 100).random(size) < 0.5).astype(np.uint8)


def make_bright_bands(seed: int, channels: int, dtype: str) -> np.ndarray:
    """The first channel is three times as bright where the class is 1."""
    image = make_bands(seed, channels, dtype)
    image[..., 0] *= (1 + 2 * make_bright_ids(seed)).astype(dtype)
    return image


def write_bands(
    root: pathlib.Path, channels: int = 5, dtype: str = "uint16", *, suffix: str = "tif", names: tuple[str, ...] = NAMES
) -> pathlib.Path:
    """A data set of the form `folder` with splits 'train' and 'val'; image i is drawn from seed i."""
    for part in ("images", "masks", "splits"):
        (root / part).mkdir(parents=True)
    for seed, name in enumerate(names):
        write_bands_image(root / "images" / f"{name}.{suffix}", make_bright_bands(seed, channels, dtype))
        write_mask(root / "masks" / f"{name}.png", make_bright_ids(seed))
    for split, members in (("train", names[:-1]), ("val", names[-1:])):
        (root / "splits" / f"{split}.txt").write_text("\n".join(members))
    content = {"class_names": ["dark", "bright"], "channels": channels, "dtype": dtype}
    (root / "classes.json").write_text(json.dumps(content))
    return root


def write_bands_image(path: pathlib.Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".tif":
        image = image[..., 0] if image.shape[2] == 1 else image
        tifffile.imwrite(path, image, photometric="minisblack", compression="deflate", **CONTIGUOUS[image.ndim])
    else:
        cv2.imwrite(str(path), image if image.shape[2] == 1 else image[..., ::-1])
