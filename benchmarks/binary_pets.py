"""Makes a binary data set as people have them from pets in VOC form: masks of 0 and 255, in several kinds of files.

python benchmarks/binary_pets.py PETS FOLDER

PETS has JPEGImages, SegmentationClass and ImageSets, with ids 0 (background), others (animals) and 255 (a band around
their outline, 13 % of all pixels, which goes to the nearer side). In FOLDER masks are called NAME_mask, and are grey
PNG, RGBA PNG or TIFF of one bit in turn. Nothing says what they hold. Then, with no further work:

python main.py --config=configs/pets_binary_cpu.py --config.data.root=FOLDER --workdir=DIR \
    --config.model.pretrained.source=mobilenet_v2_imagenet_tfslim_folded.npz [--mode=lint]
"""

from __future__ import annotations

import pathlib
import shutil
import sys

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt


def write_mask(mask: np.ndarray, target: pathlib.Path, kind: int) -> None:
    """Writes a mask [h, w] of bools as the `kind`-th kind of file, beside `target`."""
    picture = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    if kind == 0:
        picture.save(target.with_suffix(".png"))
    elif kind == 1:
        picture.convert("RGBA").save(target.with_suffix(".png"))
    else:
        picture.convert("1", dither=Image.Dither.NONE).save(target.with_suffix(".tif"))


def main(source: pathlib.Path, folder: pathlib.Path) -> None:
    for name in ("images", "masks", "splits"):
        (folder / name).mkdir(parents=True)
    for split in ("train", "val"):
        names = (source / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        (folder / "splits" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for index, name in enumerate(names):
            shutil.copy(source / "JPEGImages" / f"{name}.jpg", folder / "images")
            ids = np.asarray(Image.open(source / "SegmentationClass" / f"{name}.png"))
            nearest = distance_transform_edt(ids == 255, return_distances=False, return_indices=True)
            write_mask(ids[tuple(nearest)] > 0, folder / "masks" / f"{name}_mask", index % 3)
    print(f"{folder}: {len(list((folder / 'masks').iterdir()))} masks")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:3]))
