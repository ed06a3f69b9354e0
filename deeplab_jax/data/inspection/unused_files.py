"""Lists what lies in a data set's folder and is not used: other formats, further lists, whole sub-folders."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Collection

from deeplab_jax.data.inspection.lint_findings import Finding
from deeplab_jax.data.sources.file_formats import IMAGE_SUFFIXES
from deeplab_jax.data.sources.text_files import printable
from deeplab_jax.data.sources.walk_folder import walk

_MAX_NAMED = 3  # files in a message
_NUM_KEPT = 64  # groups with findings of their own


def find_unused(folder: pathlib.Path, used: Collection[pathlib.Path]) -> list[Finding]:
    """One finding for each kind of file in each sub-folder.

    Args:
      used: files that are read; those that systems and tools leave behind are passed over.
    """
    known = {path.absolute() for path in used}
    groups: dict[tuple[pathlib.PurePath, str], list[str]] = collections.defaultdict(list)
    for path in walk(folder):
        if (folder / path).absolute() not in known:
            groups[path.parent, path.suffix.lower()].append(path.name)
    return [_describe(folder / inside, suffix, names) for (inside, suffix), names in sorted(groups.items())][:_NUM_KEPT]


def _describe(inside: pathlib.Path, suffix: str, names: list[str]) -> Finding:
    named = ", ".join(map(printable, names[:_MAX_NAMED])) + (", ..." if len(names) > _MAX_NAMED else "")
    why = "not read: no sample has them" if suffix in IMAGE_SUFFIXES else "of a kind that is not read"
    count = f"{len(names)} file{'s' * (len(names) > 1)}"
    return Finding("unused_files", str(inside), f"{inside}: {count} {why}: {named}")
