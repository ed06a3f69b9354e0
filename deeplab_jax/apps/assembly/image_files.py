"""Resolves the image files named on the command line and the paths of their results."""

from __future__ import annotations

import collections
import glob
import os
import pathlib
from collections.abc import Sequence

from deeplab_jax.apps.assembly.segment_files import result_paths
from deeplab_jax.data.sources.file_formats import IMAGE_SUFFIXES, image_files
from deeplab_jax.data.sources.submission import Submission
from deeplab_jax.types import UserError


def name_members(paths: Sequence[pathlib.Path], folder: pathlib.Path, rules: Submission) -> list[pathlib.Path]:
    """The path in `folder` of each image's result, without extension, as in the archive.

    Raises:
      UserError: if two images would have the same result, or a name is not one of the benchmark's.
    """
    targets = [folder / rules.member(path.stem).removesuffix(".png") for path in paths]
    for target, count in collections.Counter(targets).items():
        if count > 1:
            raise UserError(f"--images: {count} images would have the result {target.name}.png; give one of them")
    return targets


def expand_images(images: str) -> list[pathlib.Path]:
    """The files named by `images`, without duplicates: a file, several separated by commas, a glob, or a folder.

    Raises:
      UserError: if a part of it matches nothing.
    """
    if not images:
        raise UserError("--images is missing: give a file, several separated by commas, a glob, or a folder")
    parts = [images] if os.path.exists(images) else [part.strip() for part in images.split(",") if part.strip()]
    found = {os.path.abspath(path): path for part in parts for path in _expand(os.path.expanduser(part))}
    return list(found.values())


def name_results(paths: Sequence[pathlib.Path], folder: pathlib.Path) -> list[pathlib.Path]:
    """The path in `folder`, without extension, of each image's results.

    It is the image's own name; images with the same name are distinguished by folder and extension (a/1.jpg and b/1.jpg
    become a_1_jpg and b_1_jpg).

    Raises:
      UserError: if two results would still have the same name, or would overwrite an image.
    """
    shared = {stem for stem, count in collections.Counter(path.stem for path in paths).items() if count > 1}
    places = [pathlib.Path(os.path.abspath(path)) for path in paths]
    common = pathlib.Path(os.path.commonpath([path.parent for path in places]))
    targets = []
    for path in places:
        name = path.stem
        if name in shared:
            name = "_".join((*path.relative_to(common).with_suffix("").parts, path.suffix[1:]))
        targets.append(folder / name)

    images = {path.resolve() for path in paths}
    claimed: dict[pathlib.Path, pathlib.Path] = {}
    for path, target in zip(paths, targets, strict=True):
        for result in result_paths(target):
            if result.resolve() in images:
                raise UserError(f"{path}: its result would overwrite the image {result}; choose another --output")
            other = claimed.setdefault(result.resolve(), path)
            if other != path:
                raise UserError(f"{path}: its result would overwrite {result}, that of {other}; rename one of them")
    return targets


def _expand(part: str) -> list[pathlib.Path]:
    path = pathlib.Path(part)
    if path.is_dir():
        found = sorted(image_files(file for file in path.iterdir() if file.is_file()))
        if not found:
            raise UserError(f"--images={part}: no image in this folder (looked for {', '.join(IMAGE_SUFFIXES)})")
        return found
    if path.exists():
        return [path]
    found = sorted(pathlib.Path(name) for name in glob.glob(part, recursive=True) if os.path.isfile(name))
    if not found:
        raise UserError(
            f"--images={part}: nothing found; give a file, several separated by commas, a glob (in quotes), or a folder"
        )
    return found
