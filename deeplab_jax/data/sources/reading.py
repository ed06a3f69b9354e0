"""How a data set's files are read where more than one way is right: what classes.json says, and what the files tell."""

from __future__ import annotations

import dataclasses
import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from deeplab_jax.data.sources.file_formats import JPEG, find_format
from deeplab_jax.data.sources.orientation_survey import MASK_ORIENTATIONS, OrientationSurvey
from deeplab_jax.data.sources.pictures import END_OF_JPEG, ends_whole
from deeplab_jax.types import UserError

REFUSE, READ = "refuse", "read"
_FIELDS = {"mask_orientation": MASK_ORIENTATIONS[1:], "truncated": (REFUSE, READ)}


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What is declared.

    Attributes:
      mask_orientation: one of `MASK_ORIENTATIONS`: how masks of photographs that are turned by EXIF were drawn.
      truncated: READ: a JPEG without its end is read as far as it goes; REFUSE: it is an error.
    """

    mask_orientation: str = ""
    truncated: str = REFUSE


def parse_reading(content: Mapping[str, Any], path: pathlib.Path) -> Reading:
    """The fields of a classes.json, whose content is given; raises UserError for a value that makes no sense."""
    told = {name: content[name] for name in _FIELDS if name in content}
    for name, value in told.items():
        if value not in _FIELDS[name]:
            raise UserError(f"{path}: has {name}={value!r}; must be {' or '.join(map(repr, _FIELDS[name]))}")
    return Reading(**told)


class FileReading:
    """Reads files as declared; what is not declared is found out when the first file makes a difference.

    Args:
      declared: what the data set's owner says.
      survey: looks at all files for how the masks of turned photographs were drawn.
      tell: is told what was found, once.
    """

    def __init__(self, declared: Reading, survey: Callable[[], OrientationSurvey], tell: Callable[[str], None]):
        self.declared = declared
        self._survey = survey
        self._tell = tell
        self._found: OrientationSurvey | None = None
        self._lock = threading.Lock()  # files are read in threads

    def whole(self, data: bytes, name: str) -> bytes:
        """An image file's content, with the end that a truncated JPEG lacks, if such files are to be read.

        What follows is grey then, as all decoders fill it.

        Raises:
          UserError: if it is truncated and such files are refused.
        """
        if find_format(data) is not JPEG or ends_whole(data, JPEG):
            return data
        if self.declared.truncated == READ:
            return data + END_OF_JPEG
        raise UserError(
            f'{name}: is truncated or damaged (its end is missing); copy the file anew, or write "truncated": "read" '
            "into classes.json (data set folder) to read it as far as it goes"
        )

    def mask_orientation(self, name: str) -> str:
        """SHOWN or STORED; raises UserError, naming the mask `name`, if nothing tells it."""
        if self.declared.mask_orientation:
            return self.declared.mask_orientation
        with self._lock:
            if self._found is None:
                self._found = self._survey()
                if self._found.orientation:
                    self._tell(self._found.describe())
        if not self._found.orientation:
            raise UnclearOrientationError(f"{name}: {self._found.describe()}")
        return self._found.orientation


class UnclearOrientationError(UserError):
    """A mask that may be meant for the upright image or for the stored pixels."""
