"""Statistics of channels: those of all values at once, computed once, kept beside what they are of."""

from __future__ import annotations

import numpy as np
import pytest
from made_bands import NAMES, make_bright_bands, write_bands, write_bands_image

from deeplab_jax.data.datasets import folder
from deeplab_jax.data.inspection import channel_statistics
from deeplab_jax.data.inspection.channel_statistics import ChannelStatistics, with_statistics
from deeplab_jax.data.sources.raw_copy import with_raw_copies
from deeplab_jax.types import UserError


def open_bands(root):
    return folder.open_dataset(str(root), str(root.parent / "prepared"))


def values_of(channels, dtype):
    """All values of the training split, one row for each channel."""
    images = [make_bright_bands(seed, channels, dtype) for seed in range(len(NAMES) - 1)]
    return np.concatenate([image.reshape(-1, channels) for image in images]).T.astype(np.float64)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_they_are_those_of_all_finite_values_at_once(tmp_path, dtype):
    dataset = open_bands(write_bands(tmp_path / "root", 2, dtype))
    info = with_statistics(dataset, "train", num_workers=2).info
    np.testing.assert_allclose(info.channel_mean, np.nanmean(values_of(2, dtype), axis=1), rtol=1e-12)
    np.testing.assert_allclose(info.channel_std, np.nanstd(values_of(2, dtype), axis=1), rtol=1e-10)
    raw = with_statistics(with_raw_copies(dataset), "train", num_workers=2).info
    assert raw == info


def test_ranges_and_missing_values():
    statistics = ChannelStatistics.zeros(2)
    for seed in range(3):
        statistics.add(ChannelStatistics.of_image(make_bright_bands(seed, 2, "float32")))
    values = values_of(2, "float32")
    np.testing.assert_array_equal(statistics.low, np.nanmin(values, axis=1))
    np.testing.assert_array_equal(statistics.high, np.nanmax(values, axis=1))
    assert statistics.num_missing.tolist() == [36, 36]
    assert statistics.count.tolist() == [values.shape[1] - 36] * 2


def test_large_means_cost_no_precision():
    rng = np.random.default_rng(0)
    images = [(1e6 + rng.standard_normal((50, 40, 1))).astype(np.float32) for _ in range(4)]
    statistics = ChannelStatistics.zeros(1)
    for image in images:
        statistics.add(ChannelStatistics.of_image(image))
    np.testing.assert_allclose(statistics.std[0], np.stack(images).astype(np.float64).std(), rtol=1e-9)


def test_they_are_computed_once_until_a_file_changes(tmp_path, monkeypatch):
    root = write_bands(tmp_path / "root")
    first = with_statistics(open_bands(root), "train", num_workers=1).info
    with monkeypatch.context() as patch:
        patch.setattr(channel_statistics, "each", None)  # computing again would fail
        assert with_statistics(open_bands(root), "train", num_workers=1).info == first
    write_bands_image(root / "images" / "a.tif", 2 * make_bright_bands(0, 5, "uint16"))
    assert with_statistics(open_bands(root), "train", num_workers=1).info.channel_mean > first.channel_mean
    kept = list((tmp_path / "prepared").glob("*-channels.json"))
    assert len(kept) == 2
    for path in kept:
        path.write_text("{")
    assert len(with_statistics(open_bands(root), "train", num_workers=1).info.channel_mean) == 5


def test_a_constant_channel_is_left_as_it_is_and_an_empty_one_refused(tmp_path):
    root = write_bands(tmp_path / "root", 2, "float32")
    for seed, name in enumerate(NAMES):
        image = make_bright_bands(seed, 2, "float32")
        image[..., 1] = 3.0
        write_bands_image(root / "images" / f"{name}.tif", image)
    info = with_statistics(open_bands(root), "train", num_workers=1).info
    assert (info.channel_mean[1], info.channel_std[1]) == (3.0, 1.0)
    for name in NAMES:
        write_bands_image(root / "images" / f"{name}.tif", np.full((24, 36, 2), [1.0, np.nan], np.float32))
    with pytest.raises(UserError, match=r"folder: channel 1 of its 2 .* has no value but NaN in split 'train'"):
        with_statistics(open_bands(root), "train", num_workers=1)
