"""What decoders warn of is said once, and told to those who ask."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.data.sources import decoder_warnings as module
from deeplab_jax.data.sources.decoder_warnings import decoder_warnings, say_once
from deeplab_jax.data.sources.images import decode_image


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing has been said yet."""
    monkeypatch.setattr(module._SAID_ONCE, "_kinds", set())


def with_profile(shade: int) -> bytes:
    """A PNG whose colour profile is rubbish: libpng warns, whoever reads it."""
    file = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), shade, np.uint8)).save(file, "PNG", icc_profile=b"abc" * 50)
    return file.getvalue()


def test_a_colour_profile_is_warned_of_once(caplog, capfd):
    for shade in range(5):
        assert (decode_image(with_profile(shade), "a.png") == shade).all()
    (record,) = caplog.records
    assert record.getMessage().startswith("PNG warning: iCCP: ")
    assert record.getMessage().endswith("(said once, of whichever files; the pixels are read)")
    assert "libpng" not in capfd.readouterr().err


def test_kinds_are_told_apart_whatever_their_numbers(caplog):
    for tag in (65000, 65001, 65002):
        logging.getLogger("tifffile").warning("tag %d is odd", tag)
    logging.getLogger("tifffile").warning("another")
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == ["tag 65000 is odd", "another"]


def test_who_asks_hears_every_one_and_nothing_is_said(caplog):
    for _ in range(2):
        with decoder_warnings() as messages:
            decode_image(with_profile(7), "a.png")
        assert len(messages) == 1
        assert messages[0].startswith("PNG warning: iCCP")
    assert not caplog.records


def test_asking_for_it_twice_changes_nothing(caplog):
    say_once()
    logging.getLogger("imagecodecs").warning("one")
    assert len(caplog.records) == 1
