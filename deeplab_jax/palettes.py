"""Colours for class ids."""

from __future__ import annotations

Palette = tuple[tuple[int, int, int], ...]


def voc_palette(num_classes: int) -> Palette:
    """The colours of PASCAL VOC: the bits of the id, distributed over red, green and blue from the highest bit down.

    Source: VOCdevkit, VOClabelcolormap.m
    """
    return tuple(
        (_channel(class_id, 0), _channel(class_id, 1), _channel(class_id, 2)) for class_id in range(num_classes)
    )


def _channel(class_id: int, channel: int) -> int:
    """Bit `channel` of each octal digit of the id; the lowest digit becomes the highest bit."""
    return sum((class_id >> (3 * digit + channel) & 1) << (7 - digit) for digit in range(8))
