"""From files to crops with the pixels computed on eight devices: the host's batches, up to rounding."""

from __future__ import annotations

import jax
import numpy as np

from deeplab_jax.config import DataConfig
from deeplab_jax.data.loading.loader import make_loader
from deeplab_jax.ops.mesh import batch_sharding, make_mesh, shard_batch
from deeplab_jax.train.device_augment import make_augment
from deeplab_jax.types import DatasetInfo, Example

PAD_PIXEL, CROP = (9, 8, 7), (33, 33)
INFO = DatasetInfo("made", 3, 255, ("a", "b", "c"), ((0, 0, 0),) * 3, {"train": 10})


class Source:
    """Smooth images, so that a label shifted by a pixel or a mirrored image would show."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Example:
        rows, columns = np.indices((40 + 3 * index, 70 - 2 * index))
        image = np.stack([rows * 3, columns * 3, rows + columns + index], axis=-1).astype(np.uint8)
        return Example(f"image{index}", image, ((rows // 8 + columns // 8) % 3).astype(np.uint8))


def load(number, *, device_augmentation, max_class_share=1.0):
    config = DataConfig(
        batch_size=8,
        crop_size=CROP,
        num_workers=2,
        max_class_share=max_class_share,
        device_augmentation=device_augmentation,
    )
    with make_loader(config, Source(), INFO, seed=1, pad_pixel=PAD_PIXEL) as loader:
        return [next(loader) for _ in range(number)]


def test_crops_of_the_devices_are_the_hosts():
    mesh = make_mesh()
    augment = make_augment(mesh, crop_size=CROP, pad_pixel=PAD_PIXEL, ignore_label=255, photometric=False)
    windows, crops = (load(4, device_augmentation=flag, max_class_share=0.5) for flag in (True, False))
    for window, want in zip(windows, crops, strict=True):
        got = augment(shard_batch(window, mesh))
        assert got.image.sharding.is_equivalent_to(batch_sharding(mesh), 4)
        assert (got.image.dtype, got.label.dtype, got.image.shape) == (np.uint8, np.uint8, (8, *CROP, 3))
        assert np.abs(np.asarray(got.image).astype(int) - want.image).max() <= 1
        assert (np.asarray(got.label) != want.label).mean() < 0.01
        np.testing.assert_array_equal(got.valid, want.valid)


def test_no_row_leaves_its_device():
    mesh = make_mesh()
    augment = make_augment(mesh, crop_size=CROP, pad_pixel=PAD_PIXEL, ignore_label=255, photometric=True)
    (window,) = load(1, device_augmentation=True)
    program = jax.jit(augment).lower(shard_batch(window, mesh)).compile().as_text()
    assert not [name for name in ("all-gather", "all-to-all", "collective-permute", "all-reduce") if name in program]


def test_the_canvas_holds_the_largest_window_and_no_more():
    (window,) = load(1, device_augmentation=True)
    assert window.image.shape == (8, 66, 66, 3)  # the crop at half its size; images are up to 67 x 70
