"""Text files as people's programs write them: UTF-8 with or without a mark, UTF-16, any line ends."""

from __future__ import annotations

import codecs
import json
import pathlib
import unicodedata
from typing import Any

from deeplab_jax.data.sources.samples import read_bytes
from deeplab_jax.types import UserError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: pathlib.Path, *, wanted: str, keep_bytes: bool = False) -> str:
    """The file's text, without a byte order mark.

    Args:
      wanted: what the file should hold, for the message: 'write one image name per line'.
      keep_bytes: bytes that are no UTF-8 become surrogates, as in file names that Python reads; False: an error.

    Raises:
      UserError: if it cannot be read or is no text.
    """
    data = read_bytes(path)
    encoding = "utf-16" if data.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = data.decode(encoding, "surrogateescape" if keep_bytes and encoding != "utf-16" else "strict")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path}: is not UTF-8 text; {wanted}")
    return text


def read_json(path: pathlib.Path, remedy: str) -> Any:
    """The content of a JSON file.

    Args:
      remedy: the end of the message: 'export it again'.

    Raises:
      UserError: if it cannot be read, is no JSON, or holds text that no file or terminal could take.
    """
    text = read_text(path, wanted="save it as UTF-8")
    try:
        content = json.loads(text)
        if "\\ud" in text.lower():  # half a pair of surrogates is no letter
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no valid JSON ({error}); {remedy}") from None
    return content


def read_list(path: pathlib.Path) -> list[str]:
    """The non-empty lines of a list of image names, which may be in whatever encoding the names have on disk.

    Raises:
      UserError: if it is no text.
    """
    lines = read_text(path, wanted="write one image name per line", keep_bytes=True).splitlines()
    return [line.strip() for line in lines if line.strip()]


def printable(name: str) -> str:
    r"""A file's name as text that can be printed and stored: bytes that are no UTF-8 become '\xe9' and the like."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def normal_name(name: str) -> str:
    """One spelling of letters with accents: macOS stores them decomposed, lists have them composed."""
    return unicodedata.normalize("NFC", name)
