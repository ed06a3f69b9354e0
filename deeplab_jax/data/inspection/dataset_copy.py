"""Writes a data set anew in the form of datasets/folder.py: the images as they are, masks as grey PNG of class ids."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from deeplab_jax.data.sources.file_formats import IMAGE_SUFFIXES
from deeplab_jax.files import write_errors
from deeplab_jax.types import DatasetInfo, UserError

_IGNORED = "ignore"
_ODD = re.compile(r"[^\w.()+@=-]")


class DatasetCopy:
    """A copy that grows by a sample at a time, in a folder that must be new: nothing is ever overwritten.

    Raises:
      UserError: when the folder exists already, or cannot be written.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.refused: list[str] = []  # files of samples that are left out
        self._splits: dict[str, list[str]] = {}
        self._names: set[str] = set()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"--output={folder}: is there already; name a new folder for the copy")

    @property
    def num_samples(self) -> int:
        return len(self._names)

    def add(self, name: str, image: pathlib.Path, mask: bytes, splits: Iterable[str]) -> None:
        """Adds a sample: its image file, and its mask as the content of a PNG of class ids.

        Args:
          name: of the sample; it may have folders.
          splits: those that list it.
        """
        name = self._unused(name)
        suffix = image.suffix if image.suffix.lower() in IMAGE_SUFFIXES else ".jpg"
        self._write(f"images/{name}{suffix}", image)
        self._write(f"masks/{name}.png", mask)
        for split in splits:
            self._splits.setdefault(split, []).append(name)

    def finish(self, info: DatasetInfo, more: Mapping[str, Any]) -> None:
        """Writes classes.json and the splits' lists.

        Args:
          info: of the data set, whose class ids the masks hold.
          more: further fields of classes.json.
        """
        ids = {str(class_id): class_id for class_id in range(info.num_classes)}
        content: dict[str, Any] = {
            "class_names": list(info.class_names),
            "palette": [list(color) for color in info.palette],
            "ignore_label": info.ignore_label,
            "task": info.task,
            "values": {**ids, str(info.ignore_label): _IGNORED},
        }
        if not info.is_rgb:
            content |= {"channels": info.channels, "dtype": info.dtype}
        self._write("classes.json", (json.dumps(content | dict(more), indent=1) + "\n").encode())
        for split, names in self._splits.items():
            self._write(f"splits/{split}.txt", "".join(f"{name}\n" for name in names).encode())

    def _unused(self, name: str) -> str:
        """The name within the copy: no other sample's, and without what a list could take for something else."""
        parts = [_ODD.sub("_", part).lstrip(".~") for part in pathlib.PurePosixPath(name).parts]
        wanted = "/".join(part for part in parts if part.strip("_")) or "image"
        chosen, count = wanted, 1
        while chosen.lower() in self._names:
            count += 1
            chosen = f"{wanted}_{count}"
        self._names.add(chosen.lower())
        return chosen

    def _write(self, inside: str, content: bytes | pathlib.Path) -> None:
        path = self.folder / inside
        with write_errors(path, "--output"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pathlib.Path):
                shutil.copyfile(content, path)
            else:
                path.write_bytes(content)
