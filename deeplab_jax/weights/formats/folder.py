"""A folder of weights, as libraries' save_pretrained writes it: which file holds them, and the config beside it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from deeplab_jax.weights.formats import sharded

# In this order: what is written today before what was written in its place.
_NAMES = (
    f"model.safetensors{sharded.SUFFIX}",
    f"pytorch_model.bin{sharded.SUFFIX}",
    "model.safetensors",
    "pytorch_model.bin",
)
_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_MAX_CONFIG_BYTES = 10_000_000


def find_weights(folder: pathlib.Path, suffixes: Iterable[str]) -> pathlib.Path:
    """The file of weights in a folder: one of the usual names, or the only one with a known suffix.

    Raises:
      ValueError: if there is none, or there are several.
    """
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    known = tuple(suffixes)
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(known) and path.is_file())
    if len(files) == 1:
        return files[0]
    if not files:
        raise ValueError("a folder without weights; name a file of weights")
    names = ", ".join(path.name for path in files[:4]) + ", ..." * (len(files) > 4)
    raise ValueError(f"a folder with several files of weights ({names}); name one of them")


def read_settings(path: pathlib.Path) -> tuple[dict[str, Any], str]:
    """(what the config beside a weights file states, its name): NAME.json, else config.json; ({}, '') if there is none.

    The entries of preprocessor_config.json are added. A config that cannot be read is passed over.
    """
    for name in (f"{path.stem}.json", _CONFIG):
        if settings := _read(path.with_name(name)):
            return dict(_read(path.with_name(_PREPROCESSOR))) | dict(settings), name
    return {}, ""


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            return {}
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
