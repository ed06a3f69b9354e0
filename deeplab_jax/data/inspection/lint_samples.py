"""Checks one sample from its original files, or one example, and reports everything that is wrong with it."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Num

from deeplab_jax.data.dataset import Originals
from deeplab_jax.data.inspection.channel_statistics import ChannelStatistics
from deeplab_jax.data.inspection.lint_findings import Finding
from deeplab_jax.data.inspection.lint_masks import CheckedMask, check_mask, invalid_value_finding
from deeplab_jax.data.sources.bands import FormatError, decode_pixels, describe_format, stored_format
from deeplab_jax.data.sources.decoder_warnings import decoder_warnings
from deeplab_jax.data.sources.file_formats import PNG, find_format
from deeplab_jax.data.sources.images import image_orientation
from deeplab_jax.data.sources.legend import UNKNOWN_ID, Codes, Legend
from deeplab_jax.data.sources.mask_orientation import mask_as_shown
from deeplab_jax.data.sources.orientation import UPRIGHT, swaps_axes
from deeplab_jax.data.sources.reading import UnclearOrientationError
from deeplab_jax.data.sources.samples import Sample, read_bytes
from deeplab_jax.data.sources.stored_labels import LabelPixels, count_label
from deeplab_jax.data.sources.walk_folder import near_files
from deeplab_jax.types import DatasetInfo, Example, ImageLabel, UserError

(_PNG_START,) = PNG.starts
_MISSING_DATA = 128  # the grey that decoders fill truncated images with
_MIN_MISSING_ROWS = 8  # one row of JPEG blocks


@dataclasses.dataclass
class CheckedSample:
    """What is known about one sample after reading it."""

    name: str
    file: str  # of the image
    findings: list[Finding]
    image_hash: bytes | None = None  # of the decoded pixels; None: undecodable
    mask_hash: bytes | None = None
    pixels: LabelPixels | None = None  # None: the mask is undecodable
    label: ImageLabel | None = None  # upright; None: not all is known
    channels: ChannelStatistics | None = None  # of an image other than RGB bytes


def check_sample(sample: Sample, originals: Originals, info: DatasetInfo) -> CheckedSample:
    """Reads both files of a sample and reports everything that is wrong with them."""
    checked = CheckedSample(sample.name, str(sample.image), [])
    mask = _read_mask(sample, originals, info, checked.findings)
    image, orientation = _read_image(sample, originals, info, checked.findings)
    if image is not None:
        _check_image(image, info, checked)
    size = (image.shape[0], image.shape[1]) if image is not None else None
    fitting = (size, size[::-1]) if size is not None and swaps_axes(orientation) else (size,)
    if size is not None and mask.size is not None and mask.size not in fitting:
        (height, width), (image_height, image_width) = mask.size, size
        message = (
            f"{sample.mask}: is {height}x{width} (height x width), but its image {sample.image.name} is "
            f"{image_height}x{image_width}; make them the same size (masks by nearest neighbour)"
        )
        checked.findings.append(Finding("size_mismatch", str(sample.mask), message))
    codes = mask.codes if mask.converted is None else mask.converted
    if codes is not None and not codes.size:  # nothing is anywhere
        codes = None if size is None else np.zeros((*size, *info.label_maps), np.uint8)
    if codes is not None:
        _check_label(codes, str(sample.mask), info, originals.legend, checked)
    if size is not None and checked.label is not None:
        checked.label = _turn_label(checked.label, size, orientation, sample, originals, checked.findings)
    return checked


def _turn_label(
    label: ImageLabel,
    size: tuple[int, int],
    orientation: int,
    sample: Sample,
    originals: Originals,
    findings: list[Finding],
) -> ImageLabel | None:
    """The label of the upright image; None, and a finding, if nothing tells how it was drawn."""
    try:
        return mask_as_shown(label, size, orientation, lambda: originals.reading.mask_orientation(str(sample.mask)))
    except UnclearOrientationError as error:
        findings.append(Finding("unclear_orientation", str(sample.mask), str(error)))
        return None


def check_example(example: Example, info: DatasetInfo, legend: Legend) -> CheckedSample:
    """The same for an example of a data set without original files."""
    checked = CheckedSample(example.name, example.name, [])
    _check_image(example.image, info, checked)
    checked.findings += _check_read(example.label, example.name, legend).findings
    _check_label(example.label, example.name, info, legend, checked)
    return checked


def _read_mask(sample: Sample, originals: Originals, info: DatasetInfo, findings: list[Finding]) -> CheckedMask:
    unread = CheckedMask(None, None, [])
    if not sample.mask.exists():
        findings.append(_missing(sample.mask, sample.name))
        return unread
    try:
        if originals.read_codes is None:
            data = _read_whole(sample.mask)
            mask = check_mask(data, str(sample.mask), info, originals.legend)
            findings += _check_suffix(data, sample.mask)
        else:
            mask = _check_read(originals.read_codes(sample), str(sample.mask), originals.legend)
    except UserError as error:
        findings.append(Finding("unreadable", str(sample.mask), str(error)))
        return unread
    findings += mask.findings
    return mask


def _check_read(codes: Codes, path: str, legend: Legend) -> CheckedMask:
    """Checks codes that are not a mask file's pixels."""
    findings = [invalid_value_finding(codes, path, legend)] if legend.unknown(codes) else []
    return CheckedMask(codes, (codes.shape[0], codes.shape[1]) if codes.size else None, findings)


def _read_image(
    sample: Sample, originals: Originals, info: DatasetInfo, findings: list[Finding]
) -> tuple[Num[np.ndarray, "h w bands"] | None, int]:
    """The upright image, if it can be read, and how its file turns it."""
    if not sample.image.exists():
        findings.append(_missing(sample.image, sample.name))
        return None, UPRIGHT
    try:
        data = _read_whole(sample.image)
        findings += _check_suffix(data, sample.image)
        findings += _check_depth(data, sample.image, info)
        data = originals.reading.whole(data, str(sample.image))
        with decoder_warnings() as warned:
            image = decode_pixels(data, str(sample.image), info)
        findings += _warnings(warned, sample.image)
        return image, image_orientation(data, str(sample.image)) if info.is_rgb else UPRIGHT
    except FormatError as error:
        findings.append(Finding("other_format", str(sample.image), str(error)))
    except UserError as error:
        findings.append(Finding("unreadable", str(sample.image), str(error)))
    return None, UPRIGHT


def _warnings(warned: Sequence[str], path: pathlib.Path) -> list[Finding]:
    if not warned:
        return []
    return [Finding("decoder_warning", str(path), f"{path}: {warned[0]}; its pixels are read")]


def _read_whole(path: pathlib.Path) -> bytes:
    """A file's content; verifies the checksums of a PNG's chunks, which decoders ignore.

    Raises:
      UserError: when the file cannot be read or is corrupt.
    """
    data = read_bytes(path)
    position = len(_PNG_START)
    while data.startswith(_PNG_START) and data[position + 4 : position + 8] != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        if end + 12 > len(data) or zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise UserError(f"{path}: is truncated or damaged (a chunk's checksum is wrong); copy the file again")
        position = end + 4
    return data


def _missing(path: pathlib.Path, name: str) -> Finding:
    message = f"{path}: does not exist, though '{name}' is listed; add the file or take the name off the list"
    message += near_files(path)
    return Finding("missing_file", str(path), message)


def _check_suffix(data: bytes, path: pathlib.Path) -> list[Finding]:
    file_format = find_format(data)
    if file_format is None or path.suffix.lower() in file_format.suffixes:
        return []
    message = f"{path}: is a {file_format.name} file by its content; harmless here, rename it for others"
    return [Finding("wrong_suffix", str(path), message)]


def _check_depth(data: bytes, path: pathlib.Path, info: DatasetInfo) -> list[Finding]:
    """Reports images that 8-bit RGB truncates: only the high byte of 16 bits, only the first three channels.

    Dropping low bits or an alpha channel is often intended; dropping a satellite's band is not.
    """
    stored = stored_format(data) if info.is_rgb else None
    if stored is None or (stored[1] == "uint8" and (stored[0] <= 3 or data.startswith(_PNG_START))):
        return []
    channels, dtype = stored
    message = (
        f"{path}: holds {describe_format(channels, dtype)}, of which 8-bit RGB keeps a part; to train on all of it, "
        f'write "channels": {channels}, "dtype": "{dtype}" into classes.json (data set folder)'
    )
    return [Finding("reduced_image", str(path), message)]


def _check_image(image: Num[np.ndarray, "h w bands"], info: DatasetInfo, checked: CheckedSample) -> None:
    checked.image_hash = _hash(image)
    if not info.is_rgb:
        checked.channels = ChannelStatistics.of_image(image)
        num_missing = int(checked.channels.num_missing.sum())
        if num_missing:
            message = (
                f"{checked.file}: {num_missing} of its values ({num_missing / image.size:.1%}) are NaN or infinite; "
                "the mean of their channel will replace them"
            )
            checked.findings.append(Finding("missing_values", checked.file, message))
        return
    is_filled = (image == _MISSING_DATA).all(axis=(1, 2)) if (image[-1] == _MISSING_DATA).all() else np.zeros(1, bool)
    num_rows = int(np.argmin(is_filled[::-1])) if not is_filled.all() else len(is_filled)
    if num_rows >= _MIN_MISSING_ROWS:
        message = (
            f"{checked.file}: its last {num_rows} rows are the grey that stands for missing data; look at it, and copy "
            "the file again if it was cut off"
        )
        checked.findings.append(Finding("cut_off_image", checked.file, message))


def _check_label(codes: Codes, path: str, info: DatasetInfo, legend: Legend, checked: CheckedSample) -> None:
    """Counts the classes; reports labels in which every pixel is ignored or of the first class."""
    labels = legend.labels(codes)
    num_invalid = int(np.sum(labels == UNKNOWN_ID))
    label = np.where(labels == UNKNOWN_ID, info.ignore_label, labels).astype(info.label_dtype)
    checked.mask_hash = _hash(label)
    found = count_label(label, info)
    checked.pixels = found._replace(num_ignored=max(found.num_ignored - num_invalid, 0))
    if num_invalid:
        return
    checked.label = label
    background = 0 if info.label_maps else int(found.of_class[0])
    if not found.num_labelled:
        message = f"{path}: every pixel is ignored: nothing can be learned from it; label it or take it off the list"
        checked.findings.append(Finding("all_ignored", path, message))
    elif int(found.of_class.sum()) == background:
        held = "no class at all" if info.label_maps else f"nothing but '{info.class_names[0]}' (0)"
        message = f"{path}: holds {held}; check that it was labelled at all"
        checked.findings.append(Finding("all_background", path, message))


def _hash(pixels: np.ndarray) -> bytes:
    content = np.ascontiguousarray(pixels).data
    return hashlib.blake2b(content, digest_size=16, key=repr(pixels.shape).encode()).digest()
