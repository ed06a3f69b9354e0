"""Your own images and masks, without writing code.

    images/NAME.jpg         any format of sources/file_formats.py, any size
    masks/NAME.png          one channel (or a palette) of class ids, same name, same size
    classes.json            {"class_names": [...], "palette": [[r, g, b], ...], "ignore_label": 255}; the last two
                            may be left out. Or classes.txt: one class per line in the order of the ids, optionally
                            followed by three numbers (its colour); ignored pixels are 255, with more classes 65535

Folders may have other names (imgs/ and labels/, JPEGImages/ and SegmentationClass/), masks may be called NAME_mask.png,
NAME_label.png or NAME_gt.png, and images and masks may share a folder; what was found is printed. A name in sub-folders
includes them: site_a/000. Where this does not tell images from masks, classes.json says it with patterns:
{"images": "photos/{name}.jpg", "masks": "trimaps/{name}_final.png"}. In place of a classes file, that of an annotation
tool is read (sources/class_files.py). Instead of masks there may be annotations of COCO, labelme, CVAT, VIA or
Supervisely, which are drawn as the tool draws them (sources/annotations).

What masks hold is told from the masks themselves (sources/settle_masks.py) and printed: class ids; 0 and 255, or set
bits, of one object, which is a binary task; colours, if the classes' are given. With one class named, or no classes
file, they must show one object. What can be understood in several ways is refused until classes.json says more:

    "task": "binary"                            one object and its background; or "multiclass"
    "values": {"0": "ground", "128": "tree", "200,0,0": "house", "255": "ignore"}    grey values, indices or colours
    "threshold": 0.5                            soft masks: the share of the largest value that makes a pixel the object
    "task": "multilabel"                        classes may overlap: a file for each (masks/NAME_CLASS.png, masks/CLASS/
                                                NAME.png or masks/NAME/CLASS.png), or a channel for each in masks/NAME
    "missing_masks": "absent"                   a class without a file is nowhere in the image, as with an empty file
    "mask_palette": "color"                     palette images are read by their colours; or by "index"
    "mask_page": 1                              of mask files with several pages, the one that is read
    "mask_orientation": "stored"                masks of photographs turned by EXIF were drawn on the pixels as they are
                                                stored; or on the upright image, "shown"
    "truncated": "read"                         JPEG files without their end are read as far as they go; or "refuse"

Images are read as 8-bit RGB. Others (satellite bands, 16-bit grey, floats) must be declared in classes.json and are
then read in their stored type: {"channels": 13, "dtype": "uint16", "class_names": [...]}, with dtype 'uint8', 'uint16'
or 'float32'; TIFF, or PNG with up to 4 channels.

The splits are taken from the first of these that exists:

    splits/SPLIT.txt or SPLIT.csv               image names or paths, one per line; the mask in a second column, or
                                                not at all. Also ImageSets/Segmentation/SPLIT.txt and SPLIT.txt
    images/SPLIT/ and masks/SPLIT/, or SPLIT/images/ and SPLIT/masks/, where one is called train, val or test
    none                                        every fifth image is 'val', the others 'train', in the order of the
                                                hashes of the names, so that it is the same on every machine
"""

from __future__ import annotations

import pathlib

from deeplab_jax.data.dataset import IGNORE_LABEL, Dataset
from deeplab_jax.data.sources.annotations.open_annotated import open_annotated
from deeplab_jax.data.sources.bands import DTYPES, MAX_CHANNELS
from deeplab_jax.data.sources.class_files import Classes, NoClassesFileError, load_json, read_classes, tool_files
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.find_pairs import find_splits
from deeplab_jax.data.sources.image_survey import survey_images
from deeplab_jax.data.sources.mask_declaration import read_declaration
from deeplab_jax.data.sources.parquet_files import find_tables, unpack_tables
from deeplab_jax.data.sources.path_words import inner_folder
from deeplab_jax.data.sources.reading import Reading, parse_reading
from deeplab_jax.data.sources.samples import require_folder
from deeplab_jax.data.sources.settle_class_masks import find_class_masks
from deeplab_jax.data.sources.settle_masks import settle_masks
from deeplab_jax.data.sources.split_lists import find_lists
from deeplab_jax.types import UserError

INFO = None  # the classes are declared in the folder's files


def open_dataset(root: str, prepared_dir: str, task: str = "") -> Dataset:
    """Opens the images and masks in `root`.

    Args:
      task: one of `TASKS`; '': what classes.json says, or the masks tell.

    Raises:
      UserError: if the folder, its classes file or its images are missing or invalid.
    """
    if not root:
        raise UserError("config.data.root is empty; give the folder with images/, masks/ and classes.json")
    folder = inner_folder(require_folder(pathlib.Path(root).expanduser(), "data.root"))
    if tables := find_tables(folder):
        folder = unpack_tables(folder, tables, prepared_dir)
    channels, dtype = read_format(folder)
    annotated = open_annotated(folder, prepared_dir, channels=channels, dtype=dtype)
    if annotated is not None:
        return annotated
    try:
        declared = read_classes(folder)
    except NoClassesFileError:
        declared = Classes((), (), IGNORE_LABEL)  # masks of one object tell enough
    told = read_declaration(folder, declared, task)
    if told.task == "multilabel":
        found, masks = find_class_masks(folder, declared, told)
    else:
        found = find_splits(folder)
        masks = settle_masks(folder, declared, told, found.splits)
    info = masks.classes.info(channels, dtype, masks.task)
    notes = (*declared.notes, *found.notes, *masks.notes, *survey_images(found.splits, info))
    return file_dataset(
        info,
        found.splits,
        prepared_dir=prepared_dir,
        legend=masks.legend,
        read_ids=masks.read_codes,
        notes=notes,
        declared=read_reading(folder),
        # Of overlapping classes a sample has several mask files, which it does not name.
        root=None if info.label_maps else folder,
        settings=(folder / "classes.json", folder / "classes.txt", *tool_files(folder), *find_lists(folder).values()),
    )


def read_reading(folder: pathlib.Path) -> Reading:
    """How files are read where more than one way is right, as declared in classes.json."""
    path = folder / "classes.json"
    return parse_reading(load_json(path) if path.is_file() else {}, path)


def read_format(folder: pathlib.Path) -> tuple[int, str]:
    """(channels, dtype) of the images as declared in classes.json; (3, 'uint8') by default.

    Raises:
      UserError: if the declaration is invalid.
    """
    path = folder / "classes.json"
    content = load_json(path) if path.is_file() else {}
    channels, dtype = content.get("channels", 3), content.get("dtype", "uint8")
    if type(channels) is not int or not 0 < channels <= MAX_CHANNELS:
        raise UserError(f"{path}: has channels={channels!r}; must be a whole number from 1 to {MAX_CHANNELS}")
    if dtype not in DTYPES:
        raise UserError(f"{path}: has dtype={dtype!r}; must be one of {', '.join(DTYPES)}")
    return channels, dtype
