"""Warnings of the libraries that decode: each is said once, however many files have cause for it.

An embedded colour profile makes libpng warn at every reading of a file whose pixels are perfectly well.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator

_LOGGERS = ("imagecodecs", "tifffile")
_MAX_KINDS = 100  # beyond, files differ in so many ways that more lines tell nothing


class _SaidOnce(logging.Filter):
    """Lets the first warning of each kind pass; all are heard by the thread that decodes."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.local()
        self._kinds: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = " ".join(record.getMessage().split())
        listener: list[str] | None = getattr(self.heard, "messages", None)
        if listener is not None:
            listener.append(text)
            return False
        kind = re.sub(r"\d+|0x[0-9a-f]+", "#", text)
        if kind in self._kinds or len(self._kinds) >= _MAX_KINDS:
            return False
        self._kinds.add(kind)
        record.msg, record.args = f"{text} (said once, of whichever files; the pixels are read)", ()
        return True


_SAID_ONCE = _SaidOnce()


def say_once() -> None:
    """From now on, decoders' warnings are said once."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_SAID_ONCE)  # the same filter is never added twice


@contextlib.contextmanager
def decoder_warnings() -> Iterator[list[str]]:
    """Collects what this thread's decoders warn of, instead of its being said."""
    messages: list[str] = []
    before = getattr(_SAID_ONCE.heard, "messages", None)
    _SAID_ONCE.heard.messages = messages
    try:
        yield messages
    finally:
        _SAID_ONCE.heard.messages = before
