"""Settings of the data set, its loader and its augmentation."""

import dataclasses

from deeplab_jax.fields import PartConfig, above, at_least, each_at_least, one_of, within
from deeplab_jax.types import TASKS


@dataclasses.dataclass(slots=True)
class DataConfig:
    """What to read, how to augment it, and with how many threads."""

    # A module of deeplab_jax/data/datasets; 'tfds:NAME'; or 'package.module:open_dataset' from anywhere.
    dataset: str = "shapes"
    root: str = ""  # folder with the original files, for data sets that need one
    task: str = one_of("", *TASKS, default="")  # what its masks say of a pixel; '': what the data set says itself
    prepared_dir: str = ""  # where prepared data is written; '': ~/.cache/deeplab_jax
    train_split: str = "train"
    eval_split: str = "val"
    batch_size: int = at_least(1, default=16)  # images of one update, over all devices
    crop_size: tuple[int, int] = (513, 513)  # (height, width); with aligned corners best output_stride * k + 1
    min_scale: float = above(0, default=0.5)
    max_scale: float = above(0, default=2.0)
    # Step between the scales to draw from; 0: any scale between the two.
    scale_step: float = at_least(0, default=0.0, words="0 (continuous) or a positive step")
    flip: bool = True  # mirror every other crop
    photometric: bool = False  # random brightness, contrast, saturation and hue
    # Redraw a crop, up to `crop_tries` times, while one class has more than this share of its labelled pixels.
    max_class_share: float = within(0, 1, open_low=True, default=1.0)
    crop_tries: int = at_least(1, default=10)
    # Probability that an object of a rare class is pasted into a crop from another image.
    copy_paste: float = within(0, 1, default=0.0, words="a probability, in [0, 1]")
    # Class ids to paste; empty: classes at most half as frequent as the median class.
    copy_paste_classes: tuple[int, ...] = each_at_least(0, default=(), words="class ids, 0 or more")
    # Further augmentations of the finished crop, in this order, each by its name in deeplab_jax/data/augment.
    augment: tuple[PartConfig, ...] = ()
    device_augmentation: bool = False  # the host only decodes; the devices scale, flip, jitter colours and pad
    prepared_form: str = one_of("files", "raw", default="files")  # 'raw': decoded; faster to read, far larger
    # Threads that make batches.
    num_workers: int = at_least(0, default=0, words="0 (one for each core) or more")
    prefetch: int = at_least(1, default=2)  # batches prepared ahead of the step
    # Seconds after which a worker that is still busy with one image ends the run.
    worker_timeout: float = above(0, default=600.0)
