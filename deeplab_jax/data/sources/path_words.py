"""What the words of a path say about an image file: whether it is an image or a mask, and its split."""

from __future__ import annotations

import enum
import pathlib
import re
from typing import NamedTuple

from deeplab_jax.data.sources.samples import image_name


class Role(enum.Enum):
    """What a file of pixels is for."""

    IMAGE = "image"
    MASK = "mask"


_FOLDERS = {
    Role.IMAGE: "image images img imgs imagefiles jpegimages jpgimages pngimages leftimg8bit photo photos picture "
    "pictures pics rgb input inputs frames original originals",
    Role.MASK: "mask masks label labels annotation annotations annot annots ann anns seg segs segmentation "
    "segmentations segmentationmask segmentationmasks segmentationclass segmentationclassraw segmentationclasspng "
    "gt gts gtfine groundtruth groundtruths target targets",
}
_ROLE_OF = {word: role for role, words in _FOLDERS.items() for word in words.split()}
_SPLIT_OF = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "ts": "test",
    "trainval": "trainval",
}
_SPLIT_WORDS = "trainval|training|train|tr|validation|valid|val|testing|test|ts"
_SPLIT_FIRST = re.compile(rf"({_SPLIT_WORDS})(?:20\d\d)?(.*)")
_SPLIT_LAST = re.compile(rf"(.*?)({_SPLIT_WORDS})(?:20\d\d)?")

# Words that are added to an image's name to name its mask, or to both.
_AFFIXES = {
    Role.IMAGE: re.compile(r"(?i)(?:^(?:image|img)[ _.-]+)|(?:[ _.-]+(?:image|img|rgb|sat|photo|leftimg8bit|0000)$)"),
    Role.MASK: re.compile(
        r"(?i)(?:^(?:masks?|labels?|gt|seg|annotation)[ _.-]+)"
        r"|(?:[ _.-]+(?:masks?|labels?|gt|seg|segmentation|annotations?|annot|ann|ground_?truth|target"
        r"|(?:gtfine_)?label(?:train)?ids)$)"
        r"|(?-i:_L$)"
    ),
}


class Place(NamedTuple):
    """What a file's path says."""

    path: pathlib.PurePath  # relative to the data set's folder
    role: Role | None  # what the folders say; None: nothing
    split: str  # '' if the folders name none
    above: tuple[str, ...]  # folders that say nothing, outside of the one that says the role
    below: tuple[str, ...]  # and inside of it
    name: str  # without its suffix

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for an image and its mask but for affixes, and different for any two images of a split."""
        return (*self.above, *self.below, self.name)


def split_name(word: str) -> str:
    """The usual name of a split: 'val' for 'valid' and 'validation'; others are left as they are."""
    return _SPLIT_OF.get(word.lower(), word)


def is_split(word: str) -> bool:
    """Whether it is one of the usual names of splits."""
    return word.lower() in _SPLIT_OF


def folder_words(name: str) -> tuple[str, Role | None]:
    """(split or '', role or None) that a folder's name says: 'train_masks', 'trainannot', 'imagesTr', 'val2017'."""
    word = re.sub(r"[\W_]+", "", name).lower()
    if word in _ROLE_OF:
        return "", _ROLE_OF[word]
    for pattern, split_group, role_group in ((_SPLIT_FIRST, 1, 2), (_SPLIT_LAST, 2, 1)):
        match = pattern.fullmatch(word)
        if match and (not match[role_group] or match[role_group] in _ROLE_OF):
            is_short = match[split_group] in ("tr", "ts")  # says nothing alone
            if match[role_group] or not is_short:
                return _SPLIT_OF[match[split_group]], _ROLE_OF.get(match[role_group])
    return "", None


def place_of(path: pathlib.PurePath) -> Place:
    """What the path of a file says; of two folders that say something, the inner one counts."""
    split, role = "", None
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    for folder in path.parts[:-1]:
        folder_split, folder_role = folder_words(folder)
        if folder_role is not None:
            above, below, role = (*above, *below), (), folder_role
        split = folder_split or split
        if not folder_split and folder_role is None:
            below = (*below, folder)
    if role is None:
        above, below = (), (*above, *below)
    return Place(path, role, split, above, below, image_name(path.name))


def without_affix(name: str, role: Role) -> str:
    """The name without the word that says its role: 'im01' for the mask 'im01_mask'; the name itself if it has none."""
    return _AFFIXES[role].sub("", name, count=1) or name
