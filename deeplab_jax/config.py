"""The one schema of an experiment: every setting and its default.

A config file returns a `Config`; the command line overrides any field by its
dotted path; validation.py refuses what cannot work.
"""

# No `from __future__ import annotations` here: the command line reads the fields' types, which must not be strings.

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Any


@dataclasses.dataclass(slots=True)
class PartConfig:
    """A part found by name: `args` are the keyword arguments of its factory."""

    name: str = ""  # 'module.factory'
    args: dict[str, Any] = field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class BatchNormConfig:
    """Batch normalisation, wherever the network has it (epsilon belongs to each part)."""

    decay: float = 0.9997  # weight of the OLD statistic (the papers' value)
    # Examples that share statistics, in batch order. 0: the whole global batch, over all devices; -1: those that one
    # device (or group of devices that share images) has, each for itself.
    group_size: int = 0
    frozen: bool = False  # normalise by the stored statistics in training too


@dataclasses.dataclass(slots=True)
class PretrainedConfig:
    """Weights to start from; with neither source nor layout, training starts from random ones."""

    source: str = ""  # path of the file
    layout: str = ""  # a module of weights/layouts, e.g. 'torchvision'; where set, training asks for a source
    # 'backbone': it alone; 'model': every array must be found; 'fitting': all that fit, the others are listed.
    scope: str = "backbone"
    # Where images have not three channels: 'repeat' spreads the kernels that read RGB over the channels there are.
    stem: str = "strict"
    calibration_batches: int = 8  # where the file has batch norm folded away: batches to re-estimate it


@dataclasses.dataclass(slots=True)
class ModelConfig:
    backbone: PartConfig = field(default_factory=lambda: PartConfig("resnet.resnet50"))
    head: PartConfig = field(default_factory=lambda: PartConfig("v3plus.v3plus"))
    auxiliary: PartConfig = field(default_factory=PartConfig)  # a second head, in training; no name: none
    crf: PartConfig = field(default_factory=PartConfig)  # 'crf_rnn.crf_rnn': learned with the rest; no name: none
    # Sizes of the image that the network reads and fuses by maximum (v2); empty: the image alone.
    scales: tuple[float, ...] = ()
    num_classes: int = 0  # 0: the data set's
    output_stride: int = 16
    align_corners: bool = True  # how logits are resized: TensorFlow's way; torchvision: False
    upsample_in_training: bool = True  # False: the labels are shrunk to the logits' size (v1, v2)
    normalization: str = "imagenet"  # see types.NORMALIZATIONS; 'dataset': by the training split's own statistics
    compute_dtype: str = "float32"  # or 'bfloat16'; parameters, statistics and logits stay float32
    # Parts whose activations are computed again in the backward pass instead of being kept, by regular expressions on
    # their paths: 'backbone/.*' is each unit of the backbone, 'backbone/block3_.*' those of one stage, 'head/.*' ...
    remat: tuple[str, ...] = ()
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)
    pretrained: PretrainedConfig = field(default_factory=PretrainedConfig)


@dataclasses.dataclass(slots=True)
class DataConfig:
    dataset: str = "shapes"  # a module of deeplab_jax/data/datasets
    root: str = ""  # folder with the original files, for data sets that need one
    prepared_dir: str = ""  # where prepared data goes; '': ~/.cache/deeplab_jax
    train_split: str = "train"
    eval_split: str = "val"
    batch_size: int = 16  # images in a global step, over all devices
    crop_size: tuple[int, int] = (513, 513)  # (height, width), each output_stride * k + 1
    min_scale: float = 0.5
    max_scale: float = 2.0
    scale_step: float = 0.0  # 0: any scale between the two
    flip: bool = True
    photometric: bool = False  # random brightness, contrast, saturation and hue
    max_class_share: float = 1.0  # of a crop's labelled pixels; crops where one class has more are drawn again
    crop_tries: int = 10  # how often at most
    copy_paste: float = 0.0  # probability that an object of a rare class, from another image, is put into a crop
    copy_paste_classes: tuple[int, ...] = ()  # their ids; (): those at most half as frequent as the median class
    device_augmentation: bool = False  # the host decodes only; the devices scale, mirror, colour and pad
    prepared_form: str = "files"  # or 'raw': decoded, which takes much room and little time to read
    num_workers: int = 0  # threads that make batches; 0: one for each CPU core
    prefetch: int = 2  # batches made ahead of the step
    worker_timeout: float = 600.0  # seconds after which a worker that is still busy with one image ends the run


@dataclasses.dataclass(slots=True)
class AddedLoss:
    """A further loss; `LossConfig` says what the fields are."""

    name: str = ""
    factor: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class LossConfig:
    name: str = "cross_entropy.softmax_cross_entropy"  # in deeplab_jax/losses
    args: dict[str, Any] = field(default_factory=dict)  # its own arguments, as {"label_smoothing": 0.1}
    factor: float = 1.0  # of this loss, beside those of `added`
    added: tuple[AddedLoss, ...] = ()  # further losses; fields that they do not have are shared
    # A number per class; {class: number}, others 1; from the training split: 'balanced', 'effective_number'; (): all 1.
    class_weights: object = ()
    top_k_fraction: float = 1.0  # share of each image's pixels that count, hardest first
    top_k_ramp_steps: int = 0  # steps over which the share falls from 1 to top_k_fraction
    side_weight: float = 1.0  # of the loss of each side output: the auxiliary head's, those of model.scales


@dataclasses.dataclass(slots=True)
class OptimizerConfig:
    name: str = "sgd"  # or 'adamw'; for large batches 'lars' or 'lamb'
    learning_rate: float = 0.007
    schedule: str = "poly"  # or 'step' (v1)
    end_learning_rate: float = 0.0  # of the poly schedule
    poly_power: float = 0.9
    step_size: int = 2_000  # of the step schedule: steps between two drops
    step_factor: float = 0.1  # by which it drops
    warmup_steps: int = 0  # linear, from 0
    momentum: float = 0.9
    weight_decay: float = 4e-5  # on kernels only: never on batch norm, biases or depthwise kernels
    decay_depthwise: bool = False
    trust_coefficient: float = 0.001  # of 'lars': the length of a step, as a share of the kernel's, per learning rate
    # Part of the parameters (regular expression on 'backbone/...' paths) -> factor on the
    # learning rate; the first that matches counts, else 1.
    learning_rate_multipliers: dict[str, float] = field(default_factory=dict)
    clip_norm: float = 0.0  # bound on the gradient's global norm; 0: none


@dataclasses.dataclass(slots=True)
class TrainConfig:
    num_steps: int = 30_000
    accumulation_steps: int = 1  # slices of the batch, one after the other, before one update
    ema_decay: float = 0.0  # weight of the OLD average; 0: no average is kept
    max_nonfinite_steps: int = 3  # consecutive skipped updates before the run is stopped
    log_every: int = 50
    eval_every: int = 1_000
    checkpoint_every: int = 1_000
    keep_checkpoints: int = 2  # newest ones kept beside the best


@dataclasses.dataclass(slots=True)
class MeasureConfig:
    """What evaluation measures beside IoU and accuracies; docs/evaluation.md says what each is."""

    boundary_iou: bool = False
    trimap: bool = False  # mean IoU near boundaries, 1 to 40 pixels wide
    trimap_around: str = "auto"  # 'void': the unlabelled border of objects; 'labels': where the label changes
    calibration: bool = False


@dataclasses.dataclass(slots=True)
class InferenceConfig:
    protocol: str = ""  # name of the protocol that these settings are; --protocols sets it
    batch_size: int = 8
    scales: tuple[float, ...] = (1.0,)  # class probabilities are averaged over them
    flip: bool = False  # and over the mirrored image
    fuse: str = "mean"  # or 'max': of the logits, as v2
    window: tuple[int, int] = (0, 0)  # (height, width) that the network sees at a time; (0, 0): the whole image
    stride: tuple[int, int] = (0, 0)  # between two windows; (0, 0): two thirds of one
    blend: str = "smooth"  # of windows where they overlap, or 'uniform'
    compute_dtype: str = ""  # 'bfloat16' or 'float32'; '': the model's
    # Refines the result: a preset of ops/crf/parameters.py, e.g. 'v2_resnet101', or the path of a crf_search.json.
    crf: str = ""
    # Images are padded (bottom, right) to this (height, width); (0, 0): each axis up to the next
    # multiple of `bucket`, plus 1, which bounds the number of compilations.
    pad_to: tuple[int, int] = (0, 0)
    bucket: int = 64
    # Before all else images are resized so that the shorter side has so many pixels, the longer at most so many;
    # 0: they keep their size, or any length. Results are brought back to the images' own size.
    resize_shorter: int = 0
    resize_longer: int = 0
    resize_antialias: bool = True  # smooth what shrinks (Pillow, torchvision) or not (OpenCV, mmsegmentation)
    resize_labels: bool = False  # resize the labels too and score there, as some scripts do: not comparable with others
    center_crop: tuple[int, int] = (0, 0)  # score the middle alone, (height, width); not comparable with others
    measures: MeasureConfig = field(default_factory=MeasureConfig)


@dataclasses.dataclass(slots=True)
class ExportConfig:
    outputs: tuple[str, ...] = ("class_ids", "logits")  # what a file gives; there are also 'probabilities'
    # (height, width) at which the network computes, the largest that images may have; (0, 0): any size where the
    # format can, else inference.pad_to or data.crop_size.
    size: tuple[int, int] = (0, 0)


@dataclasses.dataclass(slots=True)
class ServeConfig:
    max_bytes: int = 16_000_000  # of an image file
    max_pixels: int = 4_200_000  # of an image
    max_side: int = 4096  # pixels
    max_requests: int = 8  # at once, the one that is computed included; more are told to come back
    max_connections: int = 64
    max_shapes: int = 16  # sizes for which programs are kept
    upload_seconds: float = 30.0  # for a file to arrive


@dataclasses.dataclass(slots=True)
class CRFSearchConfig:
    """--mode=crf-search: the papers' ranges (v2, sec. 4.1.1)."""

    num_images: int = 100  # of the evaluation split, at even distances; 0: all
    bi_w: tuple[float, ...] = (3.0, 4.0, 5.0, 6.0)  # w1
    bi_xy_std: tuple[float, ...] = (30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0)  # sigma_alpha, pixels
    bi_rgb_std: tuple[float, ...] = (3.0, 4.0, 5.0, 6.0)  # sigma_beta, grey levels
    num_refinements: int = 1  # further rounds around the best, each at half the distance
    pos_w: float = 3.0  # w2
    pos_xy_std: float = 3.0  # sigma_gamma, pixels
    num_iterations: int = 10  # of mean field


@dataclasses.dataclass(slots=True)
class MeshConfig:
    """Devices data x space; in several processes these must be all there are."""

    data: int = 0  # groups that share the batch; 0: as many as there are devices for
    space: int = 1  # devices of a group, which share the height of each image
    shard_optimizer: bool = False  # each group keeps a part of the optimiser's state instead of a copy


@dataclasses.dataclass(slots=True)
class Config:
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    crf_search: CRFSearchConfig = field(default_factory=CRFSearchConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain nested dicts, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(settings: Mapping[str, Any]) -> Config:
    """The config that `to_dict` gave, also after its way through JSON.

    What it lacks, being older, gets its default; what this version has no field for is left out.
    """
    config = Config()
    _fill(config, settings)
    config.loss.added = tuple(AddedLoss(**each) for each in settings.get("loss", {}).get("added", ()))
    return config


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths whose values differ, each as 'path: old -> new'; inputs as `to_dict` gives them."""
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif _plain(before) != _plain(after):
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _fill(part: Any, settings: Mapping[str, Any]) -> None:
    for name in {each.name for each in dataclasses.fields(part)} & set(settings):
        before, value = getattr(part, name), settings[name]
        if dataclasses.is_dataclass(before):
            _fill(before, value)
        else:  # JSON knows no tuples
            setattr(part, name, tuple(value) if isinstance(before, tuple) and isinstance(value, list) else value)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
