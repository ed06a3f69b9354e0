"""Lists the files of a folder and its sub-folders, passing over what systems and tools leave behind."""

from __future__ import annotations

import difflib
import os
import pathlib

# Copies and settings that no one made on purpose; names beginning with a dot are passed over too.
_LEFT_BEHIND = frozenset({"__macosx", "__pycache__", "@eadir", "thumbs.db", "desktop.ini", "lost+found"})


def is_left_behind(name: str) -> bool:
    """Whether a file or folder was left by a system or tool: '._im01.png', 'Thumbs.db', '.ipynb_checkpoints'."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def walk(folder: pathlib.Path) -> list[pathlib.PurePath]:
    """The files below `folder`, relative to it, sorted; links to folders are followed once, those that
    lead above `folder` not at all."""
    found: list[pathlib.PurePath] = []
    seen = set(map(str, folder.resolve().parents))
    for path, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        folders[:] = [] if real in seen else sorted(name for name in folders if not is_left_behind(name))
        files = [] if real in seen else files
        seen.add(real)
        inside = pathlib.PurePath(os.path.relpath(path, folder))
        found += [inside / name for name in files if not is_left_behind(name)]
    return sorted(found)


def near_files(path: pathlib.Path) -> str:
    """The end of a message about a file that does not exist: '; near it are a.png, b.png', or ''."""
    stems: dict[str, str] = {}
    for name in sorted(os.listdir(path.parent)) if path.parent.is_dir() else ():
        stems.setdefault(pathlib.PurePath(name).stem, name)
    close = difflib.get_close_matches(path.stem, stems, n=3, cutoff=0.7)
    return f"; near it are {', '.join(stems[stem] for stem in close)}" if close else ""
