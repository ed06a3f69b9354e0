"""Evaluation batches: every image once at its own size, and padding that cannot count."""

from __future__ import annotations

import numpy as np
import pytest
from made_sources import INFO, MadeSource, SizedMadeSource

from deeplab_jax.canvas import make_canvas
from deeplab_jax.data.loading.loader import eval_batches
from deeplab_jax.types import UserError

SIZES = [(30, 40), (33, 33), (20, 20), (34, 33), (30, 33), (64, 70), (31, 12)]


def batches_of(source, *, batch_size=2, pad_to=(0, 0), bucket=32, shard=(0, 1)):
    return list(
        eval_batches(
            source,
            INFO,
            batch_size=batch_size,
            canvas=make_canvas(pad_to, bucket),
            pad_pixel=(9, 8, 7),
            num_workers=2,
            shard=shard,
        )
    )


@pytest.mark.parametrize("source_type", [MadeSource, SizedMadeSource])
@pytest.mark.parametrize("pad_to", [(0, 0), (65, 97)])
def test_every_image_once_at_its_own_size(source_type, pad_to):
    seen = []
    for batch, names in batches_of(source_type(SIZES), pad_to=pad_to):
        assert batch.valid.tolist() == [row < len(names) for row in range(2)]
        for row, name in enumerate(names):
            index = int(name.removeprefix("image"))
            height, width = SIZES[index]
            assert (batch.image[row, :height, :width] == index).all()
            assert (batch.label[row, :height, :width] == index % 3).all()
            assert (batch.label[row] != 255).sum() == height * width
            assert (batch.image[row, height:] == (9, 8, 7)).all()
            seen.append(name)
        assert (batch.label[~batch.valid] == 255).all()
        assert (batch.image[~batch.valid] == (9, 8, 7)).all()
    assert sorted(seen) == [f"image{index}" for index in range(len(SIZES))]


def test_sizes_of_buckets():
    shapes = {batch.label.shape for batch, _ in batches_of(MadeSource(SIZES))}
    assert shapes == {(2, 33, 65), (2, 33, 33), (2, 65, 33), (2, 65, 97)}


def test_fixed_size_has_one_shape():
    batches = batches_of(MadeSource(SIZES), pad_to=(65, 70), batch_size=4)
    assert [batch.label.shape for batch, _ in batches] == [(4, 65, 70)] * 2


def test_a_side_beyond_the_fixed_size_grows_by_buckets():
    shapes = {names: batch.label.shape for batch, names in batches_of(MadeSource(SIZES), pad_to=(64, 64), batch_size=1)}
    assert shapes.pop(("image5",)) == (1, 64, 96)
    assert set(shapes.values()) == {(1, 64, 64)}


def test_shards_have_equal_shapes_and_make_up_the_whole():
    whole = batches_of(SizedMadeSource(SIZES), batch_size=4)
    parts = [batches_of(SizedMadeSource(SIZES), batch_size=4, shard=(index, 2)) for index in range(2)]
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for (batch, names), (first, first_names), (second, second_names) in zip(whole, *parts, strict=True):
        assert first.label.shape == second.label.shape
        assert first_names + second_names == names
        for field in ("image", "label", "valid"):
            joined = np.concatenate([getattr(first, field), getattr(second, field)])
            np.testing.assert_array_equal(joined, getattr(batch, field))


def test_indivisible_batch_is_refused():
    with pytest.raises(UserError, match=r"config\.inference\.batch_size=4: must be a multiple of .* 3"):
        batches_of(MadeSource(SIZES), batch_size=4, shard=(0, 3))


def test_sized_source_is_read_once():
    source = SizedMadeSource(SIZES)
    batches_of(source)
    assert source.num_reads == len(SIZES)
