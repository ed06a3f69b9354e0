"""Packs and checks predictions for the benchmark servers of PASCAL VOC 2012 (tar.gz) and Cityscapes (zip)."""

from __future__ import annotations

import fnmatch
import io
import pathlib
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from deeplab_jax.data.datasets import cityscapes, voc
from deeplab_jax.files import whole, write_errors
from deeplab_jax.palettes import voc_palette
from deeplab_jax.types import DatasetInfo, UserError

_CITYSCAPES_NAME = re.compile(r"^(?P<frame>.+_\d{6}_\d{6})(_leftImg8bit)?$")
Sizes = Mapping[str, tuple[int, int]]  # image's name without folder and suffix -> (height, width)


class Submission(NamedTuple):
    """The format that a server expects."""

    num_classes: int
    archive: str  # file name
    member: Callable[[str], str]  # image's name -> path of its result inside the archive
    encode: Callable[[Integer[np.ndarray, "h w"]], bytes]  # class ids -> file content
    check: Callable[[Mapping[str, bytes], Sizes], list[str]]  # (files of an archive, images) -> faults


def submission(name: str, info: DatasetInfo) -> Submission:
    """The format called `name`.

    Raises:
      UserError: for an unknown name, or if the network has other classes.
    """
    if name not in SUBMISSIONS:
        raise UserError(f"--submission={name}: there are {', '.join(SUBMISSIONS)}")
    rules = SUBMISSIONS[name]
    if info.num_classes != rules.num_classes:
        raise UserError(
            f"--submission={name}: takes {rules.num_classes} classes, the network has {info.num_classes} "
            f"({info.name}); submit a network trained on that benchmark's classes"
        )
    return rules


def pack(rules: Submission, folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
    """Packs the results in `folder`, each at its `member` path, into an archive in the same folder; returns its path.

    Raises:
      UserError: when it cannot be written.
    """
    path = folder / rules.archive
    members = [rules.member(name) for name in names]
    with write_errors(path, "--output"), whole(path) as unfinished:
        if path.suffix == ".zip":
            with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
                for member in members:
                    archive.write(folder / member, member)
        else:
            with tarfile.open(unfinished, "w:gz", compresslevel=1) as archive:
                for member in members:
                    archive.add(folder / member, member)
    return path


def check_archive(rules: Submission, path: pathlib.Path, sizes: Sizes) -> list[str]:
    """The faults for which the server would reject the archive, one line each; empty if it would accept it.

    Args:
      sizes: of all images that the archive must cover.
    """
    try:
        return rules.check(_read_archive(path), sizes)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        return [f"{path.name}: no readable archive ({error})"]


def _read_archive(path: pathlib.Path) -> dict[str, bytes]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {item.filename: archive.read(item) for item in archive.infolist() if not item.is_dir()}
    with tarfile.open(path, "r:gz") as tar:
        files = {item.name: tar.extractfile(item) for item in tar if item.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def _png(values: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "256 3"] | None) -> bytes:
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _voc(competition: str) -> Submission:
    """PASCAL VOC 2012's development kit, sec. 5.

    One indexed PNG per image, in VOC's colours and the image's size, with values 0 (background) to 20, in
    results/VOC2012/Segmentation/COMPETITION_test_cls/. 'comp5' is for networks trained on VOC's own images only,
    'comp6' for all others, including those pretrained on ImageNet or MS-COCO.
    """
    folder = f"results/VOC2012/Segmentation/{competition}_test_cls"
    palette = np.asarray(voc_palette(256), np.uint8)
    num_classes = voc.INFO.num_classes

    def member(name: str) -> str:
        return f"{folder}/{name}.png"

    def check(files: Mapping[str, bytes], sizes: Sizes) -> list[str]:
        faults = _missing_and_extra(files, {member(name) for name in sizes})
        for name, size in sizes.items():
            if member(name) in files:
                faults += _check_png(member(name), files[member(name)], size, "P", range(num_classes), palette)
        return faults

    return Submission(num_classes, "results.tar.gz", member, lambda ids: _png(ids.astype(np.uint8), palette), check)


def _cityscapes() -> Submission:
    """cityscapesScripts, evalPixelLevelSemanticLabeling.py.

    Exactly one file CITY_SEQUENCE_FRAME*.png per image CITY_SEQUENCE_FRAME, anywhere in the archive: 8-bit
    single-channel label ids (not train ids), of the image's size.
    """
    label_ids = [each.label_id for each in cityscapes.CLASSES]

    def frame(name: str) -> str:
        match = _CITYSCAPES_NAME.match(name)
        if not match:
            raise UserError(
                f"--submission=cityscapes: image '{name}' is not called CITY_SEQUENCE_FRAME_leftImg8bit, by which the "
                "server finds it; take the original file"
            )
        return match["frame"]

    def check(files: Mapping[str, bytes], sizes: Sizes) -> list[str]:
        faults = []
        for name, size in sizes.items():
            found = [path for path in files if fnmatch.fnmatch(pathlib.PurePosixPath(path).name, f"{frame(name)}*.png")]
            if len(found) != 1:
                faults.append(f"{frame(name)}: {len(found)} files {frame(name)}*.png instead of one")
            for path in found:
                faults += _check_png(path, files[path], size, "L", label_ids, None)
        return faults

    return Submission(
        cityscapes.INFO.num_classes,
        "cityscapes_results.zip",
        lambda name: f"{frame(name)}_pred_labelIds.png",
        lambda ids: _png(cityscapes.to_label_ids(ids), None),
        check,
    )


def _missing_and_extra(files: Mapping[str, bytes], wanted: set[str]) -> list[str]:
    missing, extra = sorted(wanted - set(files)), sorted(set(files) - wanted)
    return [f"{path}: missing" for path in missing] + [f"{path}: does not belong there" for path in extra]


def _check_png(
    path: str,
    data: bytes,
    size: tuple[int, int],
    mode: str,
    allowed: Iterable[int],
    palette: UInt8[np.ndarray, "256 3"] | None,
) -> list[str]:
    """Faults of one file; `mode` is Pillow's: 'P' indexed, 'L' 8-bit grey."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            kind, found_mode, values = image.format, image.mode, np.asarray(image)
            colors = image.getpalette()
    except (OSError, SyntaxError) as error:
        return [f"{path}: no readable image ({error})"]
    faults = []
    if (kind, found_mode) != ("PNG", mode):
        faults.append(f"{path}: is {kind} of mode {found_mode}, must be PNG of mode {mode}")
    if values.shape[:2] != size:
        faults.append(f"{path}: is {values.shape[0]}x{values.shape[1]}, its image {size[0]}x{size[1]}")
    strange = sorted(set(np.unique(values).tolist()) - set(allowed))
    if strange:
        faults.append(f"{path}: holds the value {strange[0]}, which is no class")
    if palette is not None and colors is not None and colors != palette[: len(colors) // 3].ravel().tolist():
        faults.append(f"{path}: its palette is not the benchmark's")
    return faults


SUBMISSIONS: Mapping[str, Submission] = {
    "voc_comp5": _voc("comp5"),
    "voc_comp6": _voc("comp6"),
    "cityscapes": _cityscapes(),
}
