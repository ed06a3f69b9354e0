"""Folders of Parquet files as the Hugging Face Hub keeps data sets: columns of image files and of mask files.

    data/train-00000-of-00002.parquet  data/validation-00000-of-00001.parquet
    column 'image'                  {bytes, path} or the file's bytes
    column 'mask', 'label', ...     likewise

Source: https://huggingface.co/docs/hub/datasets-image
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from deeplab_jax.data.sources.annotations.annotated_images import split_of
from deeplab_jax.data.sources.class_files import NoClassesFileError, load_json, read_classes
from deeplab_jax.data.sources.file_formats import image_files
from deeplab_jax.data.sources.path_words import is_split, split_name
from deeplab_jax.data.sources.pixel_columns import find_columns
from deeplab_jax.data.sources.unpack_rows import PixelRow, unpack_rows
from deeplab_jax.data.sources.walk_folder import walk
from deeplab_jax.types import UserError

_BATCH = 16  # rows


def find_tables(folder: pathlib.Path) -> list[pathlib.Path]:
    """The Parquet files in a folder; none if it holds image files as well."""
    paths = walk(folder)
    return [folder / path for path in paths if path.suffix.lower() == ".parquet"] if not image_files(paths) else []


def unpack_tables(folder: pathlib.Path, tables: Sequence[pathlib.Path], prepared_dir: str) -> pathlib.Path:
    """A folder of files with the tables' images and masks.

    Raises:
      UserError: if pyarrow is missing, a file is damaged, or has no such columns.
    """
    status = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in tables]
    rows = (row for path in tables for row in _rows(path, path.relative_to(folder)))
    return unpack_rows(
        rows, source=str(folder), version=status, prepared_dir=prepared_dir, settings=settings_beside(folder)
    )


def settings_beside(folder: pathlib.Path) -> dict[str, Any] | None:
    """What classes.json or another classes file in a folder says, as content of classes.json; None if there is none."""
    own = load_json(folder / "classes.json") if (folder / "classes.json").is_file() else {}
    try:
        classes = read_classes(folder)
    except NoClassesFileError:
        return own or None
    palette = {"palette": [list(color) for color in classes.palette]} if classes.has_palette else {}
    return {"class_names": list(classes.names), "ignore_label": classes.ignore_label} | palette | own


def _rows(path: pathlib.Path, inside: pathlib.PurePath) -> Iterator[PixelRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: reading Parquet files needs pyarrow: pip install pyarrow") from None
    split = _split_of(inside)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            image, mask = find_columns(
                [field.name for field in file.schema_arrow if _holds_files(field.type)], str(path)
            )
            for batch in file.iter_batches(_BATCH, columns=[image, mask]):
                for row in batch.to_pylist():
                    name, data = _file_of(row[image])
                    yield PixelRow(split, name, data, _file_of(row[mask])[1])
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: is no readable Parquet file ({error}); download it again") from None


def _split_of(path: pathlib.PurePath) -> str:
    """'val' for data/validation-00000-of-00001.parquet; '' if the name says none."""
    word = path.name.split("-")[0].split(".")[0]
    return split_name(word) if is_split(word) else split_of(path)


def _holds_files(kind: Any) -> bool:
    """Whether a column's type is bytes, or a struct of bytes and path."""
    name = str(kind)
    return name in ("binary", "large_binary") or (name.startswith("struct<") and "bytes: " in name)


def _file_of(value: Any) -> tuple[str, bytes]:
    """(name without its suffix or '', content) of a cell; an empty cell has no content."""
    if isinstance(value, dict):
        return pathlib.PurePath(value.get("path") or "").stem, value.get("bytes") or b""
    return "", value or b""
