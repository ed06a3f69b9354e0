"""The table of weights that others publish: where they are, what of, and what their authors report."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping

_TABLE = pathlib.Path(__file__).with_name("pretrained.json")


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """One published file of weights; None: its publisher does not say.

    Attributes:
      url: of the file or of the archive that holds it, or hf://owner/name.
      checksum: 'sha256:' and at least its first digits.
      megabytes: its size.
      layout: of its names.
      licence: of the weights, or that of the code where nothing is said of them.
      data: what it was trained on.
      protocol: of the scores.
      scores: as its publisher reports them, in [0, 1].
      member: pattern of the paths in the archive.
    """

    url: str
    layout: str
    checksum: str | None = None
    megabytes: float | None = None
    licence: str | None = None
    data: str | None = None
    protocol: str | None = None
    scores: Mapping[str, float] | None = None
    member: str = ""

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


@functools.cache
def published() -> Mapping[str, Published]:
    """'system:name' -> the file."""
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: Published(**fields) for name, fields in table.items()}
