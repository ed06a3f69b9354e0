"""What the words of a path say about an image file: whether it is an image or a mask, and its split."""

from __future__ import annotations

import enum
import functools
import pathlib
import re
from typing import NamedTuple

from deeplab_jax.data.sources.samples import image_name
from deeplab_jax.data.sources.walk_folder import is_left_behind


class Role(enum.Enum):
    """What a file of pixels is for."""

    IMAGE = "image"
    MASK = "mask"


_FOLDERS = {
    Role.IMAGE: "image images img imgs imagefiles jpegimages jpgimages pngimages leftimg8bit photo photos picture "
    "pictures pics rgb input inputs frames original originals",
    Role.MASK: "mask masks label labels annotation annotations annot annots ann anns seg segs segmentation "
    "segmentations segmentationmask segmentationmasks segmentationclass segmentationclassraw segmentationclasspng "
    "gt gts gtfine groundtruth groundtruths target targets manual 1stmanual 2ndmanual",
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
    Role.IMAGE: re.compile(
        r"(?i)^(?:image|img)(?:[ _.-]+|(?=\d))|[ _.-]+(?:image|img|rgb|sat|photo|leftimg8bit|training|test|0000)$"
    ),
    Role.MASK: re.compile(
        r"(?i)^(?:masks?|labels?|gt|seg|annotation)(?:[ _.-]+|(?=\d))"
        r"|[ _.-]+(?:masks?|labels?|gt|seg|segmentation|annotations?|annot|ann|ground_?truth|target|manual"
        r"|(?:gtfine_)?label(?:train)?ids)(?:[ _-]?\d+)?$"
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
    is_sure: bool = True  # whether the role is the whole meaning of a folder's name, besides a split

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


class FolderWords(NamedTuple):
    """What a folder's name says."""

    split: str  # '' if it names none
    role: Role | None
    is_whole: bool = True  # whether it says nothing else


@functools.lru_cache(maxsize=4096)
def folder_words(name: str) -> FolderWords:
    """What a folder's name says: 'train_masks', 'trainannot', 'imagesTr', 'val2017'; 'masks_png' says still more."""
    found = _whole_word(re.sub(r"[\W_]+", "", name).lower())
    if found.split or found.role:
        return found
    parts = [_whole_word(part.lower()) for part in re.split(r"[\W_]+", name) if part]
    roles = [part.role for part in parts if part.role]
    if not roles:  # 'train_station' is no split
        return found
    splits = [part.split for part in parts if part.split]
    role = Role.MASK if Role.MASK in roles else Role.IMAGE  # 'image_masks'
    return FolderWords(splits[-1] if splits else "", role, is_whole=False)


def says_anything(folder: str) -> bool:
    """Whether a folder's name says a split or a role, and so is no part of the names of the images in it."""
    words = folder_words(folder)
    return bool(words.split or words.role)


def _whole_word(word: str) -> FolderWords:
    if word in _ROLE_OF:
        return FolderWords("", _ROLE_OF[word])
    for pattern, split_group, role_group in ((_SPLIT_FIRST, 1, 2), (_SPLIT_LAST, 2, 1)):
        match = pattern.fullmatch(word)
        if match and (not match[role_group] or match[role_group] in _ROLE_OF):
            is_short = match[split_group] in ("tr", "ts")  # says nothing alone
            if match[role_group] or not is_short:
                return FolderWords(_SPLIT_OF[match[split_group]], _ROLE_OF.get(match[role_group]))
    return FolderWords("", None)


def place_of(path: pathlib.PurePath) -> Place:
    """What the path of a file says; of two folders that say something, the inner one counts."""
    split, role, is_sure = "", None, True
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    for folder in path.parts[:-1]:
        words = folder_words(folder)
        if words.role is not None:
            above, below, role, is_sure = (*above, *below), (), words.role, words.is_whole
        split = words.split or split
        if not words.split and words.role is None:
            below = (*below, folder)
    if role is None:
        above, below = (), (*above, *below)
    return Place(path, role, split, above, below, image_name(path.name), is_sure)


def without_affix(name: str, role: Role) -> str:
    """The name without what says its role: 'im01' for the masks 'im01_mask' and 'im01.jpg'; '' if that is all."""
    if _ROLE_OF.get(name.lower()) is role:
        return ""
    return _AFFIXES[role].sub("", image_name(name), count=1) or name


def inner_folder(folder: pathlib.Path) -> pathlib.Path:
    """The folder inside `folder` where that is all it holds, as unpacked archives often do; else `folder` itself."""
    while True:
        inside = [path for path in folder.iterdir() if not is_left_behind(path.name)]
        if len(inside) != 1 or not inside[0].is_dir() or says_anything(inside[0].name):
            return folder
        folder = inside[0]
