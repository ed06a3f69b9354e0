"""Per-channel mean, deviation and range over a split, computed in one pass and stored beside the prepared copy."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.sources.prepare import PreparedSource, write_errors_for_users
from deeplab_jax.data.sources.raw_copy import RawSource
from deeplab_jax.data.workers import each
from deeplab_jax.files import whole
from deeplab_jax.types import ExampleSource, UserError


@dataclasses.dataclass
class ChannelStatistics:
    """Statistics over all finite values of some images; arrays have one number per channel."""

    count: Int[np.ndarray, "bands"]  # of finite values
    num_missing: Int[np.ndarray, "bands"]  # NaN or infinite
    mean: Float[np.ndarray, "bands"]
    squares: Float[np.ndarray, "bands"]  # sum of squared distances from the mean
    low: Float[np.ndarray, "bands"]  # infinite if there is no value
    high: Float[np.ndarray, "bands"]

    @classmethod
    def zeros(cls, channels: int) -> ChannelStatistics:
        counts, zeros = np.zeros((2, channels), np.int64), np.zeros((2, channels))
        infinite = np.full(channels, np.inf)
        return cls(counts[0], counts[1], zeros[0], zeros[1], infinite, -infinite)

    @classmethod
    def of_image(cls, image: Num[np.ndarray, "h w bands"]) -> ChannelStatistics:
        """Statistics of one image."""
        found = cls.zeros(image.shape[2])
        for channel in range(image.shape[2]):
            values = image[..., channel].astype(np.float64)
            values = values[np.isfinite(values)]
            found.num_missing[channel] = image[..., channel].size - values.size
            if values.size:
                mean = values.mean()
                found.count[channel], found.mean[channel] = values.size, mean
                found.squares[channel] = np.square(values - mean).sum()
                found.low[channel], found.high[channel] = values.min(), values.max()
        return found

    def add(self, other: ChannelStatistics) -> None:
        """Merges the statistics of other images.

        Source: Chan, Golub, LeVeque (1983), eq. 2.1: numerically stable in any order
        """
        total = self.count + other.count
        share = other.count / np.maximum(total, 1)
        distance = other.mean - self.mean
        self.squares = self.squares + other.squares + distance**2 * self.count * share
        self.mean = self.mean + distance * share
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.count, self.num_missing = total, self.num_missing + other.num_missing

    @property
    def std(self) -> Float[np.ndarray, "bands"]:
        return np.sqrt(self.squares / np.maximum(self.count, 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return {key: np.asarray(value).tolist() for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ChannelStatistics:
        """The inverse of `to_dict`."""
        return cls(**{field.name: np.asarray(content[field.name]) for field in dataclasses.fields(cls)})


def with_statistics(dataset: Dataset, split: str, *, num_workers: int) -> Dataset:
    """The same data set, with the channels' means and deviations over a split in its info.

    They are computed on first use and stored beside the split's prepared copy.

    Args:
      split: the training split.
      num_workers: threads; 0: one for each CPU core.

    Raises:
      UserError: when the split cannot be opened, or a channel has no finite value.
    """
    info = dataset.info
    source = dataset.open_split(split)
    statistics = _kept(source) or _compute(source, info.channels, num_workers, f"channels of {info.name}/{split}")
    empty = np.flatnonzero(statistics.count == 0)
    if empty.size:
        raise UserError(
            f"{info.name}: channel {empty[0]} of its {info.channels} (counted from 0) has no value but NaN in split "
            f"'{split}'; leave it out of the files"
        )
    # A constant channel carries no information: whatever divides it, it stays zero.
    std = np.where(statistics.std > 0, statistics.std, 1.0)
    known = dataclasses.replace(info, channel_mean=tuple(statistics.mean.tolist()), channel_std=tuple(std.tolist()))
    return dataclasses.replace(dataset, info=known)


def _compute(source: ExampleSource, channels: int, num_workers: int, title: str) -> ChannelStatistics:
    """Computes in threads, with a progress bar; stores the result if the source has its own folder."""
    statistics = ChannelStatistics.zeros(channels)

    def of_image(index: int) -> ChannelStatistics:
        return ChannelStatistics.of_image(source[index].image)

    for found in each(of_image, range(len(source)), title=title, num_workers=num_workers):
        statistics.add(found)
    path = _path(source)
    if path is not None:
        with write_errors_for_users(path.parent), whole(path) as unfinished:
            unfinished.write_text(json.dumps(statistics.to_dict()) + "\n")
    return statistics


def _kept(source: ExampleSource) -> ChannelStatistics | None:
    """The result of an earlier run; None if there is none, or its file is damaged."""
    path = _path(source)
    try:
        return ChannelStatistics.from_dict(json.loads(path.read_text())) if path is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(source: ExampleSource) -> pathlib.Path | None:
    """A path beside the prepared copy, whose name changes whenever a file does."""
    if not isinstance(source, (PreparedSource, RawSource)):
        return None
    return source.folder.with_name(f"{source.folder.name}-channels.json")
