"""Training batches: a function of seed and position alone, complete, restorable, and safe to abandon."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from made_sources import INFO, MadeSource, SizedMadeSource

from deeplab_jax.config import DataConfig
from deeplab_jax.data.loading.loader import make_loader
from deeplab_jax.types import Example, UserError


def config(**changes) -> DataConfig:
    return DataConfig(**{"batch_size": 4, "crop_size": (9, 17), "num_workers": 2, "photometric": True} | changes)


class NoiseSource(MadeSource):
    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng(index)
        height, width = self._made_sizes[index]
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Example(f"image{index}", image, rng.integers(0, 3, (height, width), dtype=np.uint8))


NOISE = NoiseSource([(12 + 2 * index, 30 - index) for index in range(10)])


def loader(source=NOISE, seed=3, shard=(0, 1), **changes):
    return make_loader(config(**changes), source, INFO, seed=seed, pad_pixel=(9, 8, 7), shard=shard)


def take(number, **arguments):
    with loader(**arguments) as batches:
        return list(itertools.islice(batches, number))


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for field in ("image", "label", "valid"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_shapes_and_types():
    (batch,) = take(1)
    assert (batch.image.shape, batch.image.dtype) == ((4, 9, 17, 3), np.uint8)
    assert (batch.label.shape, batch.label.dtype) == ((4, 9, 17), np.uint8)
    assert (batch.valid.dtype, batch.valid.tolist()) == (bool, [True] * 4)
    assert set(np.unique(batch.label)) <= {0, 1, 2, 255}


@pytest.mark.parametrize(("num_workers", "prefetch"), [(1, 1), (3, 4), (7, 2)])
def test_batches_do_not_depend_on_workers_or_prefetch(num_workers, prefetch):
    options = {"max_class_share": 0.4, "copy_paste": 0.5, "copy_paste_classes": (0, 2)}
    want = take(8, num_workers=2, **options)
    assert_same(want, take(8, num_workers=num_workers, prefetch=prefetch, **options))


def digest(batches, field):
    return hashlib.sha256(b"".join(getattr(batch, field).tobytes() for batch in batches)).hexdigest()


def test_batches_are_those_of_earlier_versions():
    """A run can be repeated: what is drawn for a position, and the pixels where OpenCV interpolates none."""
    assert (
        digest(take(8, seed=3), "label")
        == digest(take(8, seed=3, photometric=False), "label")
        == "70f52868b13aa58900dfc445ecf9e1dc8d1fec36d6f6526323898b1d99d16305"
    )
    plain = take(8, seed=3, photometric=False, flip=False, min_scale=1.0, max_scale=1.0)
    assert digest(plain, "image") == "b22dcdc84650b57eaaa5dd80f66616a8fb0ff140c43623ad4aba87372c6a903b"
    assert digest(plain, "label") == "652b8ab671e3a7831cdcade4efbc6db97b7a2256dfe21fd4b51bd96e5faecb3f"


def test_batches_depend_on_the_seed():
    assert not np.array_equal(take(1, seed=3)[0].image, take(1, seed=4)[0].image)


def test_restored_position_continues_the_same_stream():
    whole = take(9)
    with loader() as first:
        for _ in range(4):
            next(first)
        state = first.get_state()
    assert state == {"position": 4}
    with loader(num_workers=5) as second:
        next(second)
        second.set_state(state)
        assert_same(whole[4:], [next(second) for _ in range(5)])
        assert second.get_state() == {"position": 9}


def test_each_epoch_shows_each_image_once_in_a_new_order():
    with loader(source=SizedMadeSource([(9, 17)] * 10), batch_size=4) as batches:
        names = [name for position in range(10) for name in batches.names_at(position)]
    epochs = [names[start : start + 10] for start in range(0, 40, 10)]  # 10 is no multiple of 4
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 10 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("source_type", [MadeSource, SizedMadeSource])
def test_names_are_those_of_the_pixels(source_type):
    source = source_type([(9, 17)] * 10)
    with loader(source=source, min_scale=1.0, max_scale=1.0, photometric=False) as batches:
        for position in range(6):
            drawn = [f"image{index}" for index in next(batches).image[:, 0, 0, 0]]
            assert batches.names_at(position) == tuple(drawn)


def test_names_of_a_sized_source_cost_no_reading():
    source = SizedMadeSource([(9, 17)] * 10)
    with loader(source=source) as batches:
        batches.names_at(12)
    assert source.num_reads == 0


@pytest.mark.parametrize("device_augmentation", [False, True])
@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_shards_are_the_rows_of_the_whole_batch(num_processes, device_augmentation):
    """So a run that goes on with other processes sees the same batches."""
    whole = take(5, device_augmentation=device_augmentation)
    parts = [
        take(5, shard=(index, num_processes), device_augmentation=device_augmentation) for index in range(num_processes)
    ]
    for want, *shards in zip(whole, *parts, strict=True):
        for field, rows in want._asdict().items():
            np.testing.assert_array_equal(np.concatenate([getattr(shard, field) for shard in shards]), rows)


def test_every_process_can_name_the_whole_batch():
    with loader(shard=(1, 2)) as second_half, loader() as both:
        assert second_half.names_at(3) == both.names_at(3)


def test_batch_larger_than_the_split():
    (batch,) = take(1, source=MadeSource([(9, 17)] * 3), batch_size=8)
    assert batch.valid.all()
    assert len(batch.image) == 8


def test_padding_is_ignored():
    source = MadeSource([(5, 7)] * 2)
    (batch,) = take(1, source=source, min_scale=1.0, max_scale=1.0, photometric=True)
    assert (batch.label[:, 5:] == 255).all()
    assert (batch.label[:, :, 7:] == 255).all()
    assert (batch.image[:, 5:] == (9, 8, 7)).all()
    assert (batch.label[:, :5, :7] < 3).all()


def test_batches_handed_out_are_not_written_again():
    with loader(source=NOISE, prefetch=1) as batches:
        first = next(batches)
        kept = first.image.copy()
        for _ in range(5):
            next(batches)
    np.testing.assert_array_equal(first.image, kept)


class StuckSource(SizedMadeSource):
    """One file of which never comes."""

    def __getitem__(self, index):
        if index == 3:
            RELEASED.wait(60)
        return super().__getitem__(index)


RELEASED = threading.Event()


def test_a_stuck_worker_is_named():
    with loader(source=StuckSource([(9, 17)] * 4), worker_timeout=0.3, num_workers=2) as batches:
        message = r"data workers are stuck: for more than 0\.3 s busy with image3; check these files"
        with pytest.raises(UserError, match=message):
            next(batches)
        RELEASED.set()


class FailingSource(SizedMadeSource):
    error: Exception = ValueError("bits")

    def __getitem__(self, index: int) -> Example:
        if index == 4:
            raise self.error
        return super().__getitem__(index)


def test_error_in_a_worker_names_the_file():
    source = FailingSource([(9, 17)] * 6)
    with pytest.raises(RuntimeError, match=r"^image4: .*ValueError\('bits'\)"):
        take(3, source=source)


def test_user_errors_of_a_worker_pass_unchanged():
    source = FailingSource([(9, 17)] * 6)
    source.error = UserError("image4.jpg: is truncated; copy the file anew")
    with pytest.raises(UserError, match=r"^image4\.jpg: is truncated; copy"):
        take(3, source=source)


def test_close_joins_the_workers_and_may_be_repeated():
    before = threading.active_count()
    batches = loader(num_workers=3)
    next(batches)
    batches.close()
    batches.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="closed"):
        next(batches)


def test_prefetch_works_while_nobody_asks():
    source = MadeSource([(9, 17)] * 10)
    with loader(source=source, prefetch=2) as batches:
        next(batches)
        deadline = time.monotonic() + 5
        while source.num_reads < 12 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert source.num_reads == 12  # the batch handed out and two more, of four each


def test_empty_split_and_indivisible_batch_are_refused():
    with pytest.raises(UserError, match=r"config\.data\.train_split='train': holds no image"):
        loader(source=MadeSource([]))
    with pytest.raises(
        UserError, match=r"config\.data\.batch_size=4: must be a multiple of the number of processes, 3"
    ):
        loader(shard=(0, 3))


def test_forgotten_loader_does_not_hang_the_exit():
    script = (
        "import threading\n"
        "from deeplab_jax.config import DataConfig\n"
        "from deeplab_jax.data.loading.loader import make_loader\n"
        "from deeplab_jax.types import DatasetInfo\n"
        "class Stuck:\n"
        "    def __len__(self): return 1\n"
        "    def __getitem__(self, index): threading.Event().wait()\n"
        "info = DatasetInfo('a', 1, 255, ('a',), ((0, 0, 0),), {})\n"
        "batches = make_loader(DataConfig(), Stuck(), info, seed=0, pad_pixel=(0, 0, 0))\n"
        "threading.Thread(target=next, args=(batches,), daemon=True).start()\n"
        "print('done')\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert finished.stdout == "done\n", finished.stderr
    assert finished.returncode == 0


@pytest.mark.parametrize(
    "module", ["loading.loader", "datasets.shapes", "datasets.voc", "datasets.folder", "sources.images"]
)
def test_input_pipeline_never_imports_jax(module):
    """And no TensorFlow either: both take seconds, and jax would take the accelerator."""
    script = (
        f"import sys, deeplab_jax.data.{module}\n"
        "sys.exit(str(sorted({'jax', 'jaxlib', 'flax', 'tensorflow', 'torch'} & set(sys.modules))))\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert finished.stderr.strip() == "[]"
