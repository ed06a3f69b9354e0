"""What a sample of a folder's masks holds, from which it is told what their values mean."""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deeplab_jax.data.sources.legend import Legend, count_codes
from deeplab_jax.data.sources.mask_codes import mask_codes, read_mask_file
from deeplab_jax.data.sources.samples import Sample, read_bytes
from deeplab_jax.data.workers import each
from deeplab_jax.types import UserError

_NUM_SURVEYED = 100  # masks that are looked at, at most
_CHUNK = 8
_BLANK = Legend({}, 0)


@dataclasses.dataclass
class MaskSurvey:
    """Codes and forms of the masks looked at."""

    num_masks: int  # of the data set
    codes: list[frozenset[int]] = dataclasses.field(default_factory=list)  # of each mask
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    examples: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)  # kind -> a mask of that kind

    @property
    def values(self) -> frozenset[int]:
        """All codes that were seen."""
        return frozenset[int]().union(*self.codes)

    @property
    def where(self) -> str:
        """'in all 12 masks', 'in the 100 of 1200 masks looked at'."""
        seen = len(self.codes)
        return (
            f"in all {seen} masks" if seen == self.num_masks else f"in the {seen} of {self.num_masks} masks looked at"
        )

    def together(self, one: int, other: int) -> bool:
        """Whether a single mask holds both codes."""
        return any({one, other} <= codes for codes in self.codes)


def survey_masks(
    splits: Mapping[str, Sequence[Sample]],
    is_settled: Callable[[MaskSurvey], bool] = lambda _: False,
    *,
    page: int | None = None,
) -> MaskSurvey:
    """Looks at masks spread evenly over a data set; those that cannot be read are left to whoever reads them all.

    Args:
      is_settled: whether further masks would change nothing; asked now and then.
      page: see `read_mask_file`.
    """
    masks = list(dict.fromkeys(sample.mask for samples in splits.values() for sample in samples))
    survey, look = MaskSurvey(len(masks)), functools.partial(_look, page=page)
    chosen = [masks[index] for index in np.unique(np.linspace(0, len(masks) - 1, _NUM_SURVEYED).astype(int))]
    # Far apart ones first, since most folders are settled after a few.
    order = [path for start in range(_CHUNK) for path in chosen[start::_CHUNK]] if masks else []
    for start in range(0, len(order), _CHUNK):
        for path, seen in zip(order[start:], each(look, order[start : start + _CHUNK]), strict=False):
            if seen is not None:
                kind, codes = seen
                survey.kinds[kind] += 1
                survey.examples.setdefault(kind, path)
                survey.codes.append(codes)
        if is_settled(survey):
            break
    return survey


def _look(path: pathlib.Path, page: int | None) -> tuple[str, frozenset[int]] | None:
    try:
        file = read_mask_file(read_bytes(path), str(path), page=page)
        return file.kind, frozenset(count_codes(mask_codes(file, _BLANK, str(path)))[0])
    except UserError:
        return None
