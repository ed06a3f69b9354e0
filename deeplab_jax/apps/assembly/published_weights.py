"""Weights by name: a published file that is fetched once, verified and kept, or a repository of a hub."""

from __future__ import annotations

import importlib
import os
import pathlib
from types import ModuleType

from deeplab_jax import registry
from deeplab_jax.data.sources.archives import Archive, download, unpack
from deeplab_jax.data.sources.prepare import prepared_folder
from deeplab_jax.types import UserError
from deeplab_jax.weights.formats.sharded import SUFFIX as INDEX
from deeplab_jax.weights.pretrained import Published, published

FOLDER_VARIABLE = (
    "DEEPLAB_JAX_WEIGHTS"  # the folder of the files that were fetched; default: weights/ in the user's cache
)
_HUB = "hf://"
_CONFIGS = ("*.json", "README.md")
_HUB_FILES = ((*_CONFIGS, "*.safetensors", f"*{INDEX}"), (*_CONFIGS, "*.bin", "*.pth", "*.pt", "*.ckpt", "*.h5"))


def local_path(source: str) -> str:
    """The path of a source: of a published file by its name, of a hub's repository, or the source itself.

    Args:
      source: 'torchvision:deeplabv3_resnet50_coco_voc', 'hf://owner/name', 'hf://owner/name@revision', or a path.

    Raises:
      UserError: for a name that is not known, or a file that cannot be fetched; it says what to fetch and where to.
    """
    if source.startswith(_HUB):
        return _from_hub(source.removeprefix(_HUB), source)
    table = published()
    if source in table:
        found = table[source]
        return (
            _from_hub(found.url.removeprefix(_HUB), source) if found.url.startswith(_HUB) else _fetched(source, found)
        )
    system = source.partition(":")[0]
    if ":" in source and system in {name.partition(":")[0] for name in table} and not pathlib.Path(source).exists():
        raise UserError(f"{source}: no weights of that name{registry.near(source, list(table))}")
    return source


def _folder() -> pathlib.Path:
    chosen = os.environ.get(FOLDER_VARIABLE)
    return prepared_folder(chosen) if chosen else prepared_folder(str(prepared_folder("") / "weights"))


def _fetched(name: str, found: Published) -> str:
    """The file, or the folder with what was in its archive."""
    folder = _folder()
    file = folder / found.file_name
    unpacked = folder / name.replace(":", "-")
    if found.member and unpacked.is_dir():
        return _inside(unpacked)
    remedy = f"fetch {found.url} elsewhere and put it at {file}"
    if not file.is_file():
        size = f" ({found.megabytes:g} MB)" if found.megabytes else ""
        try:
            download(Archive(file.name, found.url, found.checksum or ""), file)
        except OSError as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{name}: cannot be fetched ({reason}); {remedy}{size}") from None
    if not found.member:
        return str(file)
    unpack(file, found.member, unpacked, remedy)
    return _inside(unpacked)


def _inside(folder: pathlib.Path) -> str:
    """The innermost folder of what was unpacked, or its only file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise UserError(f"{folder}: the archive did not hold the weights; delete the folder and fetch them again")
    return str(files[0] if len(files) == 1 else files[0].parent)


def _from_hub(repository: str, source: str) -> str:
    """The folder of a repository in huggingface_hub's cache, which is filled if necessary.

    Raises:
      UserError: where the package is missing, or the repository cannot be had.
    """
    name, _, revision = repository.strip("/").partition("@")
    if name.count("/") != 1:
        raise UserError(f"{source}: must be {_HUB}OWNER/NAME, or {_HUB}OWNER/NAME@REVISION")
    hub = _hub(source)
    for patterns in _HUB_FILES:
        try:
            folder = hub.snapshot_download(name, revision=revision or None, allow_patterns=list(patterns))
        except Exception as error:  # of many kinds: no network, no repository, no access, a name that is none
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{source}: cannot be had ({reason}); fetch the repository elsewhere and give its folder, or put it "
                "into the cache of huggingface_hub"
            ) from None
        if any(path.suffix not in (".json", ".md") for path in pathlib.Path(folder).iterdir()):
            break
    return str(folder)


def _hub(source: str) -> ModuleType:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(f"{source}: needs the package huggingface_hub: pip install huggingface_hub") from None
