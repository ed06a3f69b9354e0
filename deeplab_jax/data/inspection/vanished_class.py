"""Notices, before hours are spent, that what should be learned is not in the labels of the training split."""

from __future__ import annotations

import numpy as np

from deeplab_jax.data.dataset import CountedSource, Dataset
from deeplab_jax.data.sources.legend import Legend
from deeplab_jax.data.sources.stored_labels import LabelPixels
from deeplab_jax.types import DatasetInfo, ExampleSource, UserError

_MUCH = 0.25  # of what is not background; borders around objects are far less


def describe_vanished(pixels: LabelPixels, info: DatasetInfo, split: str, legend: Legend | None) -> str:
    """What is wrong with the labels, and the remedy, in one line; '' if nothing is.

    Either there is only one class, or a class is missing and much of what is not background is ignored, though nobody
    declared the ignore label.
    """
    seen = pixels.of_class > 0
    total = pixels.num_labelled + pixels.num_ignored
    if not total or seen.all():
        return ""
    missing = ", ".join(name for name, is_seen in zip(info.class_names, seen, strict=True) if not is_seen)
    ignored = info.ignore_label
    values = f'{{..., "{ignored}": "{info.class_names[int(np.argmin(seen))]}"}}'
    if seen.sum() <= (0 if info.task == "multilabel" else 1):
        only = f"only '{info.class_names[int(seen.argmax())]}'" if seen.any() else "no class at all"
        hidden = f', or, if {ignored}, which is ignored, is one of them, say so in classes.json as "values": {values}'
        return (
            f"{split}: shows {only} ({pixels.num_ignored / total:.1%} of the pixels are ignored): nothing can be "
            f"learned; label {missing}" + hidden * (pixels.num_ignored > 0)
        )
    foreground = total - int(pixels.of_class[0])
    if legend is None or not legend.ignore_is_assumed or pixels.num_ignored <= _MUCH * foreground:
        return ""
    return (
        f"{split}: never shows {missing}, and {ignored}, which is ignored, fills {pixels.num_ignored / foreground:.0%} "
        f"of what is not '{info.class_names[0]}': if it is one of them, say so in classes.json as "
        f'"values": {values}; if it is to be ignored, "ignore_label": {ignored}'
    )


def require_classes(source: ExampleSource, dataset: Dataset, split: str) -> None:
    """Raises UserError if nothing can be learned from a split that is to be trained on; other sources pass unread."""
    if isinstance(source, CountedSource):
        legend = dataset.originals.legend if dataset.originals else None
        if found := describe_vanished(source.label_pixels, dataset.info, split, legend):
            raise UserError(f"data set {dataset.info.name}: {found}")
