"""A checkpoint's manifest: the size and SHA-256 of each of its files, written before the checkpoint counts.

A checkpoint is compared with its manifest before anything parses it: on damaged files the libraries below end in a long
traceback or take the process with them.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

FILE = "manifest.json"  # inside a checkpoint
_WRITTEN_LATER = frozenset({FILE, "_CHECKPOINT_METADATA", "commit_success.txt"})  # and not needed to read it
_ITEMS = ("state", "data")
# Arrays are read to the host, whatever devices they were saved from.
_READ_ALL = """
import pathlib, sys
import jax, numpy, orbax.checkpoint as ocp
folder = pathlib.Path(sys.argv[1])
reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
saved = reader.metadata(folder / "state").item_metadata.tree
to_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=numpy.ndarray), saved)
reader.restore(folder / "state", ocp.args.PyTreeRestore(restore_args=to_host))
ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(folder / "data")
"""


def write_manifest(folder: pathlib.Path) -> None:
    """Writes the manifest of a checkpoint whose files are complete."""
    files = {name: _entry(folder / name) for name in _file_names(folder)}
    (folder / FILE).write_text(json.dumps({"files": files}, indent=1) + "\n")


def find_damage(folder: pathlib.Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if it is intact.

    A checkpoint without a manifest, of an older version, is read once in a child process, which may crash.
    """
    missing = [item for item in _ITEMS if not (folder / item).is_dir()]
    if missing:
        return f"{missing[0]} is missing"
    try:
        listed = dict(json.loads((folder / FILE).read_text())["files"])
    except FileNotFoundError:
        return None if _is_readable(folder) else "it cannot be read"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{FILE} is damaged"
    for name in _file_names(folder):
        if name not in listed:
            return f"{name} does not belong to it"
    return next((reason for name, entry in listed.items() if (reason := _difference(folder / name, name, entry))), None)


def _difference(path: pathlib.Path, name: str, listed: Any) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    try:
        found = _entry(path)
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    if found == listed:
        return None
    if not isinstance(listed, dict) or found["size"] == listed.get("size"):
        return f"{name} has changed"
    return f"{name} has {found['size']} bytes instead of {listed.get('size')}"


def _file_names(folder: pathlib.Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.name not in _WRITTEN_LATER and path.is_file():
            yield path.relative_to(folder).as_posix()


def _entry(path: pathlib.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": os.fstat(file.fileno()).st_size}


def _is_readable(folder: pathlib.Path) -> bool:
    command = [sys.executable, "-c", _READ_ALL, str(folder)]
    return subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True).returncode == 0
