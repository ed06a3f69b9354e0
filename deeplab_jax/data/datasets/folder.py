"""Your own images and masks, without writing code.

    images/NAME.jpg         any image format, any size
    masks/NAME.png          one channel (or a palette) of class ids, same name, same size
    classes.json            {"class_names": [...], "palette": [[r, g, b], ...], "ignore_label": 255}; the last two
                            may be left out. Or classes.txt: one class per line in the order of the ids, optionally
                            followed by three numbers (its colour); ignored pixels are 255

Images are read as 8-bit RGB. Others (satellite bands, 16-bit grey, floats) must be declared in classes.json and are
then read in their stored type: {"channels": 13, "dtype": "uint16", "class_names": [...]}, with dtype 'uint8', 'uint16'
or 'float32'; TIFF, or PNG with up to 4 channels.

The splits are taken from the first of these that exists:

    splits/SPLIT.txt                            image names, one per line
    images/SPLIT/ and masks/SPLIT/, or SPLIT/images/ and SPLIT/masks/
    none                                        every fifth image is 'val', the others 'train', in the order of the
                                                hashes of the names, so that it is the same on every machine
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.sources.bands import DTYPES, MAX_CHANNELS
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.samples import Sample, find_images, image_name, list_samples, read_list, require_folder
from deeplab_jax.palettes import Palette, voc_palette
from deeplab_jax.types import DatasetInfo, UserError

INFO = None  # the classes are declared in the folder's files
_MAX_CLASSES = 255  # ids are bytes, and one of the 256 is for ignored pixels


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens the images and masks in `root`.

    Raises:
      UserError: if the folder, its classes file or its images are missing or invalid.
    """
    if not root:
        raise UserError("config.data.root is empty; give the folder with images/, masks/ and classes.json")
    folder = require_folder(pathlib.Path(root).expanduser(), "data.root")
    class_names, palette, ignore_label = read_classes(folder)
    channels, dtype = read_format(folder)
    info = DatasetInfo("folder", len(class_names), ignore_label, class_names, palette, {}, channels, dtype)
    return file_dataset(info, find_splits(folder), prepared_dir=prepared_dir)


def read_classes(folder: pathlib.Path) -> tuple[tuple[str, ...], Palette, int]:
    """Reads classes.json or classes.txt.

    Returns:
      (class names, palette, ignore label); the palette is VOC's if none is given.

    Raises:
      UserError: if neither exists, or its content is invalid.
    """
    json_path, text_path = folder / "classes.json", folder / "classes.txt"
    if json_path.is_file():
        return _parse_json(json_path)
    if text_path.is_file():
        return _parse_text(text_path)
    raise UserError(
        f"{json_path}: does not exist, nor does classes.txt; write one class name per line into classes.txt"
    )


def read_format(folder: pathlib.Path) -> tuple[int, str]:
    """(channels, dtype) of the images as declared in classes.json; (3, 'uint8') by default.

    Raises:
      UserError: if the declaration is invalid.
    """
    path = folder / "classes.json"
    content = _load_json(path) if path.is_file() else {}
    channels, dtype = content.get("channels", 3), content.get("dtype", "uint8")
    if not isinstance(channels, int) or not 0 < channels <= MAX_CHANNELS:
        raise UserError(f"{path}: has channels={channels!r}; must be a whole number from 1 to {MAX_CHANNELS}")
    if dtype not in DTYPES:
        raise UserError(f"{path}: has dtype={dtype!r}; must be one of {', '.join(DTYPES)}")
    return channels, dtype


def find_splits(folder: pathlib.Path) -> dict[str, list[Sample]]:
    """Split name -> samples, as described in the module's docstring.

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


def _load_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is no valid JSON ({error}); fix it or use classes.txt") from None
    if not isinstance(content, dict) or not isinstance(content.get("class_names"), list):
        raise UserError(f'{path}: has no list "class_names"; write {{"class_names": ["background", ...]}}')
    return content


def _parse_json(path: pathlib.Path) -> tuple[tuple[str, ...], Palette, int]:
    content = _load_json(path)
    names = tuple(str(name) for name in content["class_names"])
    if content.get("num_classes", len(names)) != len(names):
        raise UserError(
            f"{path}: has num_classes={content['num_classes']} but {len(names)} class_names; make them agree"
        )
    ignore_label = content.get("ignore_label", 255)
    if ignore_label not in range(256):
        raise UserError(f"{path}: has ignore_label={ignore_label!r}; must be a whole number from 0 to 255")
    return _checked(path, names, content.get("palette"), ignore_label)


def _parse_text(path: pathlib.Path) -> tuple[tuple[str, ...], Palette, int]:
    names, colors = [], []
    for line in read_list(path):
        words = line.split()
        if len(words) > 3 and all(word.isdecimal() for word in words[-3:]):
            colors.append([int(word) for word in words[-3:]])
            words = words[:-3]
        names.append(" ".join(words))
    return _checked(path, tuple(names), colors or None, 255)


def _checked(
    path: pathlib.Path, names: tuple[str, ...], colors: Any, ignore_label: int
) -> tuple[tuple[str, ...], Palette, int]:
    if not 0 < len(names) <= _MAX_CLASSES:
        raise UserError(f"{path}: names {len(names)} classes; must be 1 to {_MAX_CLASSES}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: names the class '{repeated[0]}' more than once; give each id a name of its own")
    if colors is None:
        return names, voc_palette(len(names)), ignore_label
    if len(colors) != len(names) or not all(_is_color(color) for color in colors):
        raise UserError(f"{path}: must give all {len(names)} classes a colour of three numbers from 0 to 255, or none")
    return names, tuple((red, green, blue) for red, green, blue in colors), ignore_label


def _is_color(color: Any) -> bool:
    return isinstance(color, list) and len(color) == 3 and all(level in range(256) for level in color)
