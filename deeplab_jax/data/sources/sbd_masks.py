"""SBD, the masks of VOC's other images (Hariharan et al. 2011), as published: .mat files and two lists.

    benchmark_RELEASE/dataset/cls/NAME.mat      GTcls.Segmentation: VOC's class ids, without a border
    benchmark_RELEASE/dataset/train.txt  val.txt

Source: Hariharan et al. 2011, Semantic contours from inverse detectors; the archive's checksum is torchvision's
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence

import numpy as np
import scipy.io
from jaxtyping import Integer

from deeplab_jax.data.sources.archives import Archive
from deeplab_jax.data.sources.mask_files import decode_mask
from deeplab_jax.data.sources.samples import Sample, find_images, image_name, read_bytes
from deeplab_jax.data.sources.text_files import read_list
from deeplab_jax.types import UserError

ARCHIVE = Archive(
    "benchmark.tgz",
    url="http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
    wanted=r"/dataset/(cls/[^/]+\.mat|(train|val)\.txt)$",
)
_FOLDERS = ("benchmark_RELEASE/dataset", "SBD/benchmark_RELEASE/dataset", "SBD/dataset", "SBD", "sbd", "dataset", "")


def find_sbd(folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """The folder with SBD's lists and cls/."""
    places = (folder / inner for folder in folders for inner in _FOLDERS)
    return next((place for place in places if (place / "cls").is_dir() and (place / "train.txt").is_file()), None)


def trainaug_samples(devkit: pathlib.Path, sbd: pathlib.Path) -> list[Sample]:
    """VOC's and SBD's training images and SBD's validation images, without VOC's validation images: 10,582 in all.

    VOC's own masks go before SBD's, which are coarser and lack the ignored border.
    """
    lists = devkit / "ImageSets" / "Segmentation"
    names = {name for split in ("train", "val") for name in _names(sbd / f"{split}.txt")}
    names = (names | set(_names(lists / "train.txt"))) - set(_names(lists / "val.txt"))
    own, images = find_images(devkit / "SegmentationClass"), devkit / "JPEGImages"
    return [Sample(name, images / f"{name}.jpg", own.get(name, sbd / "cls" / f"{name}.mat")) for name in sorted(names)]


def read_ids(sample: Sample) -> Integer[np.ndarray, "h w"]:
    """The ids in a sample's mask: SBD's .mat file or VOC's own image.

    Raises:
      UserError: if the file cannot be read or holds no such mask.
    """
    data = read_bytes(sample.mask)
    if sample.mask.suffix != ".mat":
        return decode_mask(data, str(sample.mask))
    try:
        ids = scipy.io.loadmat(io.BytesIO(data), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
        if ids.ndim != 2 or ids.dtype.kind not in "ui":
            raise ValueError(f"GTcls.Segmentation is {ids.dtype} {list(ids.shape)}")
    except Exception as error:  # SciPy raises various exceptions for damaged files
        reason = " ".join(str(error).split())
        raise UserError(f"{sample.mask}: is no mask of SBD ({reason}); unpack {ARCHIVE.name} again") from None
    return np.asarray(ids)


def _names(path: pathlib.Path) -> list[str]:
    return [image_name(line.split()[0]) for line in read_list(path)] if path.is_file() else []
