"""PASCAL VOC 2012 segmentation, and anything laid out like it.

`root` is the folder with JPEGImages, SegmentationClass and
ImageSets/Segmentation, or a folder above it (VOCdevkit, or what holds it), or
the original archive, or the folder that the archive lies in. Without a root
the archive is downloaded. Each list in ImageSets/Segmentation is a split.

`trainaug` are the 10,582 images of SBD (Hariharan et al. 2011) with masks in
SegmentationClassAug and their list in ImageSets/Segmentation/trainaug.txt
(train_aug.txt will do).

Source: Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/
"""

from __future__ import annotations

import os
import pathlib
import shutil
import tarfile
import tempfile
import urllib.request

import tensorflow_datasets as tfds
from tqdm import tqdm

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.file_dataset import file_dataset
from deeplab_jax.data.palettes import voc_palette
from deeplab_jax.data.prepare import prepared_folder
from deeplab_jax.data.samples import Sample, image_name, list_samples, read_list, require_folder
from deeplab_jax.types import ExampleSource, UserError

CLASS_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
IGNORE_LABEL = 255  # the masks' border around objects

ARCHIVE = "VOCtrainval_11-May-2012.tar"
ARCHIVE_URL = f"http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{ARCHIVE}"
ARCHIVE_INFO = tfds.download.checksums.UrlInfo(
    size=1_999_639_040,
    checksum="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    filename=ARCHIVE,
)

_WHAT_TO_PUT_WHERE = (
    f"get {ARCHIVE_URL} and give config.data.root the folder that it lies in, "
    "or the unpacked folder with JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/"
)
_LISTS = pathlib.PurePosixPath("ImageSets/Segmentation")
_UNPACKED = ("JPEGImages", "SegmentationClass", "SegmentationClassAug", str(_LISTS))


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens VOC 2012, or data of its form, at `root`; '': downloads it.

    Raises:
      UserError: when `root` holds no such data, or the download fails; says
        what to put where.
    """
    folder = _find_folder(root, prepared_dir)
    splits: dict[str, list[Sample]] = {}
    for path in sorted((folder / _LISTS).glob("*.txt")):
        is_augmented = path.stem in ("trainaug", "train_aug")
        masks = folder / ("SegmentationClassAug" if is_augmented else "SegmentationClass")
        if masks.is_dir():
            # Some lists hold "/JPEGImages/NAME.jpg /SegmentationClassAug/NAME.png".
            names = [image_name(line.split()[0]) for line in read_list(path)]
            splits["trainaug" if is_augmented else path.stem] = list_samples(names, folder / "JPEGImages", masks)
    dataset = file_dataset(
        "voc",
        splits,
        class_names=CLASS_NAMES,
        palette=voc_palette(len(CLASS_NAMES)),
        ignore_label=IGNORE_LABEL,
        prepared_dir=prepared_dir,
    )

    def open_split(split: str) -> ExampleSource:
        if split == "trainaug" and split not in splits:
            raise UserError(
                f"{folder}: has no split 'trainaug'; put the 10,582 masks of SBD into SegmentationClassAug/ "
                f"and their names into {_LISTS / 'trainaug.txt'}"
            )
        return dataset.open_split(split)

    return Dataset(dataset.info, open_split)


def _find_folder(root: str, prepared_dir: str) -> pathlib.Path:
    """The folder with JPEGImages, SegmentationClass and ImageSets/Segmentation."""
    if not root:
        return _download(prepared_folder(prepared_dir) / "voc-downloaded")
    path = pathlib.Path(root).expanduser()
    archive = path if path.is_file() else path / ARCHIVE
    if path.is_file() or (archive.is_file() and _find_inside(path) is None):
        status = archive.stat()
        target = prepared_folder(prepared_dir) / f"voc-unpacked-{status.st_size}-{status.st_mtime_ns}"
        return target if target.is_dir() else _unpack(archive, target)
    folder = _find_inside(require_folder(path, "data.root"))
    if folder is None:
        raise UserError(f"config.data.root={root!r}: holds no VOC data; {_WHAT_TO_PUT_WHERE}")
    return folder


def _find_inside(path: pathlib.Path) -> pathlib.Path | None:
    for inner in ("", "VOC2012", "VOCdevkit/VOC2012"):
        folder = path / inner
        if (folder / "JPEGImages").is_dir() and (folder / "SegmentationClass").is_dir() and (folder / _LISTS).is_dir():
            return folder
    return None


def _download(target: pathlib.Path) -> pathlib.Path:
    if target.is_dir():
        return target
    downloads = target.with_name("downloads")
    try:
        # TFDS would try an unreachable server for minutes.
        with urllib.request.urlopen(urllib.request.Request(ARCHIVE_URL, method="HEAD"), timeout=20):
            pass
        manager = tfds.download.DownloadManager(
            download_dir=downloads, url_infos={ARCHIVE_URL: ARCHIVE_INFO}, force_checksums_validation=True
        )
        archive = pathlib.Path(manager.download(ARCHIVE_URL))
    except Exception as error:  # the network, the server, the checksum, the disk: the remedy is the same
        raise UserError(
            f"config.data.root is empty and the download failed ({_reason(error)}); {_WHAT_TO_PUT_WHERE}"
        ) from None
    return _unpack(archive, target)


def _unpack(archive: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Unpacks what segmentation needs into the folder `target`, which appears when it is complete."""
    # TFDS would need TensorFlow for this.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-") as temporary:
        unfinished = pathlib.Path(temporary) / "VOC2012"
        try:
            with tarfile.open(archive) as tar:
                for member in tqdm(tar, desc=f"unpacking {archive.name}", unit="file", disable=None):
                    _unpack_member(tar, member, unfinished)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UserError(f"{archive}: cannot be unpacked ({_reason(error)}); {_WHAT_TO_PUT_WHERE}") from None
        if _find_inside(unfinished) is None:
            raise UserError(f"{archive}: holds no VOC data; {_WHAT_TO_PUT_WHERE}")
        unfinished.rename(target)
    return target


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: pathlib.Path) -> None:
    parent, name = pathlib.PurePosixPath(member.name).parent, pathlib.PurePosixPath(member.name).name
    needed = next((inner for inner in _UNPACKED if str(parent).endswith(inner)), None)
    content = tar.extractfile(member) if needed and member.isfile() else None
    if needed and content:
        path = folder / needed / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
        os.utime(path, (member.mtime, member.mtime))  # the copy's fingerprint outlives unpacking anew


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
