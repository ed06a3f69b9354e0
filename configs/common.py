"""Recipes shared by several experiments; a config file takes one and changes what differs."""

from __future__ import annotations

import contextlib
import math
import statistics
import sys

from deeplab_jax.config import (
    BatchNormConfig,
    Config,
    DataConfig,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PartConfig,
    TrainConfig,
)
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.sources.pictures import open_picture
from deeplab_jax.data.sources.samples import read_bytes
from deeplab_jax.presets import PRESETS
from deeplab_jax.types import UserError

_PAPERS_CROP = 513
_VOC = {"dataset": "voc", "train_split": "trainaug", "eval_split": "val"}
# The authors' Caffe networks: new layers learn ten times as fast, biases twice as fast again.
_CAFFE_MULTIPLIERS = {"head/.*logits/bias": 20.0, "head/.*logits/.*": 10.0, ".*/bias": 2.0}


def v1_paper(head: str) -> Config:
    """DeepLab v1 (1412.7062, sec. 5): batch 20, crop 321, 6,000 steps, labels downsampled to the logits' size.

    The input is normalised for torchvision's ImageNet VGG-16, which replaces the authors' weights.
    """
    return Config(
        model=ModelConfig(
            backbone=PartConfig("vgg16.vgg16"),
            head=PartConfig(head),
            output_stride=8,
            upsample_in_training=False,
        ),
        data=DataConfig(**_VOC, batch_size=20, crop_size=(321, 321), min_scale=1.0, max_scale=1.0),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            schedule="step",
            step_size=2_000,
            weight_decay=5e-4,
            learning_rate_multipliers=dict(_CAFFE_MULTIPLIERS),
        ),
        train=TrainConfig(num_steps=6_000),
        inference=InferenceConfig(pad_to=(513, 513)),
    )


def v2_vgg16_paper(head: str) -> Config:
    """DeepLab v2 on VGG-16 (1606.00915, sec. 4.1): v1's network with the poly schedule, batch 10, 20,000 steps."""
    config = v1_paper(head)
    config.data.batch_size = 10
    config.optimizer.schedule = "poly"
    config.optimizer.learning_rate_multipliers = {
        "head/(logits|fc8_.)/bias": 20.0,
        "head/(logits|fc8_.)/kernel": 10.0,
        ".*/bias": 2.0,
    }
    config.train.num_steps = 20_000
    return config


def v2_resnet101_paper(head: str) -> Config:
    """DeepLab v2 on ResNet-101 (1606.00915, sec. 4.1.2): three image scales, batch norm frozen."""
    backbone = PartConfig(**PRESETS["caffe"].part("resnet.resnet101"))
    return Config(
        model=ModelConfig(
            backbone=backbone,
            head=PartConfig(head),
            scales=(1.0, 0.75, 0.5),
            output_stride=8,
            upsample_in_training=False,
            normalization=PRESETS["caffe"].normalization,
            batch_norm=BatchNormConfig(frozen=True),
        ),
        data=DataConfig(**_VOC, batch_size=10, crop_size=(321, 321), min_scale=0.5, max_scale=1.5, scale_step=0.25),
        optimizer=OptimizerConfig(
            learning_rate=2.5e-4,
            weight_decay=5e-4,
            learning_rate_multipliers={"head/.*/bias": 20.0, "head/.*": 10.0},
        ),
        train=TrainConfig(num_steps=20_000),
        inference=InferenceConfig(pad_to=(513, 513)),
    )


def v3_paper(backbone: str) -> Config:
    """DeepLab v3 (1706.05587, sec. 4.1): batch 16, crop 513, 30,000 steps at output stride 16."""
    return Config(
        model=ModelConfig(
            backbone=PartConfig(**PRESETS["tf_slim"].part(backbone)),
            head=PartConfig("aspp.aspp"),
            normalization="minus_one_to_one" if backbone.endswith("_beta") else "slim_mean",
            batch_norm=BatchNormConfig(decay=0.9997),
            compute_dtype="bfloat16",
        ),
        data=DataConfig(**_VOC, batch_size=16, crop_size=(513, 513)),
        optimizer=OptimizerConfig(learning_rate=0.007, weight_decay=1e-4),
        train=TrainConfig(num_steps=30_000),
        inference=InferenceConfig(pad_to=(513, 513)),
    )


def xception65_paper(head: str) -> Config:
    """Xception-65 as trained for v3+'s tables (1802.02611, sec. 4): v3's recipe, lower weight decay, no multi-grid."""
    config = v3_paper("xception.xception65")
    config.model.head.name = head
    config.model.normalization = "minus_one_to_one"
    config.optimizer.weight_decay = 4e-5
    return config


def v3_mobilenet_v2_paper() -> Config:
    """MobileNetV2 with the light ASPP (1801.04381, sec. 6.3): only image pooling and the 1x1 branch."""
    config = v3_paper("mobilenet_v2.mobilenet_v2")
    config.model.head.args |= {"atrous_rates": ()}
    config.model.normalization = "minus_one_to_one"
    config.model.batch_norm.decay = 0.997
    config.optimizer.weight_decay = 4e-5
    return config


def on_cityscapes(config: Config) -> Config:
    """Adapts a recipe of v3 or v3+ in place to Cityscapes (1706.05587, sec. 4.5): crop 769, 90,000 steps."""
    config.data = DataConfig(dataset="cityscapes", batch_size=16, crop_size=(769, 769))
    config.train.num_steps = 90_000
    config.inference.pad_to = (1025, 2049)
    return config


def torchvision_reference(backbone: str) -> Config:
    """DeepLab v3 as torchvision's references/segmentation/train.py trains it: 8 x 4 images, 30 epochs, crop 480.

    There the shorter side is resized to 0.5 to 2 times 520; here scales are relative to the image, of which COCO's are
    mostly 480 high or wide.
    """
    preset = PRESETS["torchvision"]
    return Config(
        model=ModelConfig(
            backbone=PartConfig(**preset.part(backbone)),
            head=PartConfig(**preset.part("aspp.aspp")),
            auxiliary=PartConfig(**preset.part("auxiliary.auxiliary", feature="penultimate")),
            output_stride=8,
            align_corners=False,
            batch_norm=BatchNormConfig(decay=0.9),
        ),
        data=DataConfig(
            dataset="coco_voc", batch_size=32, crop_size=(480, 480), min_scale=260 / 480, max_scale=1040 / 480
        ),
        loss=LossConfig(side_weight=0.5),
        optimizer=OptimizerConfig(
            learning_rate=0.02,
            weight_decay=1e-4,
            decay_all=True,
            learning_rate_multipliers={"auxiliary/.*": 10.0},
        ),
        train=TrainConfig(num_steps=30 * 92_518 // 32),
        inference=InferenceConfig(resize_shorter=520),
    )


def mmseg_v3plus_resnet50(dataset: str, num_steps: int) -> Config:
    """mmsegmentation's deeplabv3plus_r50-d8 on crops of 512: 4 x 4 images, poly down to 1e-4, photometric distortion.

    There images are first resized to 512 pixels of the shorter side; here scales are relative to the image.
    """
    preset = PRESETS["mmseg"]
    data = _VOC if dataset == "voc" else {"dataset": dataset}
    return Config(
        model=ModelConfig(
            backbone=PartConfig(**preset.part("resnet.resnet50")),
            head=PartConfig(**preset.part("v3plus.v3plus", atrous_rates=(12, 24, 36), rates_output_stride=8)),
            auxiliary=PartConfig(**preset.part("auxiliary.auxiliary", feature="penultimate", channels=256)),
            output_stride=8,
            align_corners=False,
            batch_norm=BatchNormConfig(decay=0.9),
        ),
        data=DataConfig(**data, batch_size=16, crop_size=(512, 512), max_class_share=0.75, photometric=True),
        loss=LossConfig(side_weight=0.4),
        optimizer=OptimizerConfig(learning_rate=0.01, end_learning_rate=1e-4, weight_decay=5e-4, decay_all=True),
        train=TrainConfig(num_steps=num_steps),
    )


def fcn_paper(head: str) -> Config:
    """FCN (1605.06211, sec. 4.3): whole images one at a time, momentum 0.99, a fixed learning rate.

    Whole images become padded 513-pixel crops at their own scale. The authors' rate of 1e-10 applies to a loss summed
    over pixels; ours is a mean over some 200,000 of them.
    """
    return Config(
        model=ModelConfig(
            backbone=PartConfig("vgg16.vgg16", {"pool_size": 2}),
            head=PartConfig(head),
            output_stride=32,
            align_corners=False,
        ),
        data=DataConfig(**_VOC, batch_size=1, crop_size=(513, 513), min_scale=1.0, max_scale=1.0, flip=False),
        optimizer=OptimizerConfig(
            learning_rate=2e-5,
            schedule="step",
            step_size=100_000,
            momentum=0.99,
            weight_decay=5e-4,
            learning_rate_multipliers={".*/bias": 2.0},
        ),
        train=TrainConfig(num_steps=100_000),
        inference=InferenceConfig(pad_to=(513, 513)),
    )


def v3plus_paper() -> Config:
    """DeepLab v3+ as trained for the paper's VOC tables (1802.02611, sec. 4): v3's recipe with the decoder."""
    config = v3_paper("resnet.resnet101_beta")
    config.model.backbone.args |= {"multi_grid": (1, 2, 4)}
    config.model.head.name = "v3plus.v3plus"
    return config


def mobilenet_v2_finetune() -> Config:
    """A light v3+ on MobileNetV2, for fine-tuning from ImageNet weights on a small data set.

    Batch norm statistics decay fast, and faster at the start, since such runs are short.
    """
    return Config(
        model=ModelConfig(
            backbone=PartConfig("mobilenet_v2.mobilenet_v2"),
            head=PartConfig("v3plus.v3plus", {"separable": True, "logits_stddev": 0.06}),
            normalization="minus_one_to_one",
            batch_norm=BatchNormConfig(decay=0.99, start_correction=True),
        ),
        optimizer=OptimizerConfig(learning_rate=0.01, weight_decay=4e-5),
    )


def fit_to_images(config: Config, dataset: Dataset, *, num_epochs: int) -> None:
    """Sets crop, atrous rates and number of steps by the image files of the training split, and says so.

    The crop is the median image's shorter side, at most the papers' 513 pixels; the rates are the papers' in proportion
    to it, since beyond the features of a crop nothing is learned. Between 600 steps, which a few images need too, and
    8,000. Files that cannot be read do not matter here: the linter and training name them.
    """
    assert dataset.originals is not None
    samples = dataset.originals.samples.get(config.data.train_split, ())
    sizes = []
    for sample in samples[:: max(len(samples) // 32, 1)]:
        with contextlib.suppress(UserError):
            sizes.append(min(open_picture(read_bytes(sample.image), str(sample.image)).size))
    if not sizes:
        return
    shorter = statistics.median(sizes)
    side = min(max(int(shorter) // 16, 1) * 16 + 1, _PAPERS_CROP)  # smaller images are padded
    config.data.crop_size = (side, side)
    config.model.head.args["atrous_rates"] = tuple(max(1, round(rate * side / _PAPERS_CROP)) for rate in (6, 12, 18))
    num_steps = min(max(num_epochs * len(samples) // config.data.batch_size, 600), 8_000)
    config.train.num_steps = num_steps
    config.train.eval_every = config.train.checkpoint_every = num_steps // 4
    print(
        f"{len(samples)} images, whose shorter sides have {shorter:g} pixels in the median: crops of {side}x{side}, "
        f"{num_steps} steps of {config.data.batch_size}",
        file=sys.stderr,
    )


def for_batch_size(config: Config, batch_size: int, *, num_images: int) -> Config:
    """Adapts a recipe in place to a larger batch and the same number of epochs.

    With k = batch_size / the recipe's own:
      * 1 / k of the steps; learning rate times k, reached linearly in the first 5 epochs (Goyal et al., 1706.02677),
        if k > 1;
      * running statistics of batch norm decay at the same rate per image: decay^k. They are computed over groups of the
        recipe's own batch size, so that the noise is the same at any size and no more devices communicate;
      * LARS (You et al., 1708.03888) from 512 images on, since the linear rule ends at about one tenth of a data set;
        its rate follows the square root of the batch size, through 31.2 at 32,768, as in MLPerf's ResNet-50.

    Source: the papers named; none of it has been measured on VOC yet.
    """
    scale = batch_size / config.data.batch_size
    if scale <= 1:
        return config
    config.model.batch_norm.decay **= scale
    config.model.batch_norm.group_size = config.data.batch_size
    config.data.batch_size = batch_size
    config.optimizer.learning_rate *= scale
    config.optimizer.warmup_steps = math.ceil(5 * num_images / batch_size)
    config.train.num_steps = math.ceil(config.train.num_steps / scale)
    if batch_size >= 512:
        config.optimizer.name = "lars"
        config.optimizer.learning_rate = 31.2 * math.sqrt(batch_size / 32_768)
    for name in ("log_every", "eval_every", "checkpoint_every"):
        setattr(config.train, name, max(math.ceil(getattr(config.train, name) / scale), 1))
    return config
