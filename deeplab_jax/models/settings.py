"""Settings of the network."""

import dataclasses
from dataclasses import field

from deeplab_jax.fields import PartConfig, at_least, each_above, one_of
from deeplab_jax.nn.settings import BatchNormConfig
from deeplab_jax.types import COMPUTE_DTYPES, DATASET_NORMALIZATION, NORMALIZATIONS, TASKS


@dataclasses.dataclass(slots=True)
class PretrainedConfig:
    """Weights to start from; with neither source nor layout, training starts from random weights."""

    source: str = ""  # path of the file
    layout: str = ""  # a module of weights/layouts, e.g. 'torchvision'; if set, training requires a source
    # 'backbone': only that; 'model': every array must be found; 'fitting': whatever fits, and the rest is listed.
    scope: str = one_of("backbone", "model", "fitting", default="backbone")
    # For images without exactly three channels: 'repeat' spreads the RGB kernels over all channels.
    stem: str = one_of("strict", "repeat", default="strict")
    # Batches from which batch norm statistics are estimated if the file has batch norm folded into the kernels.
    calibration_batches: int = at_least(1, default=8)


@dataclasses.dataclass(slots=True)
class ModelConfig:
    """The network: images -> logits."""

    backbone: PartConfig = field(default_factory=lambda: PartConfig("resnet.resnet50"))
    head: PartConfig = field(default_factory=lambda: PartConfig("v3plus.v3plus"))
    auxiliary: PartConfig = field(default_factory=PartConfig)  # a second head, used in training; no name: none
    crf: PartConfig = field(default_factory=PartConfig)  # 'crf_rnn.crf_rnn': trained with the network; no name: none
    # Scales at which the network reads the image; their logits are fused by maximum (v2). Empty: the image as it is.
    scales: tuple[float, ...] = each_above(0, default=(), words="positive factors")
    num_classes: int = at_least(0, default=0, words="0 (the data set's) or more")
    task: str = one_of("", *TASKS, default="")  # what the logits mean; '': what the data set's masks do
    output_stride: int = one_of(
        8, 16, 32, 64, 128, 256, default=16, words="8, 16 or 32 (or up to 256 with cascaded blocks)"
    )
    align_corners: bool = True  # how logits are resized: TensorFlow's convention; torchvision: False
    upsample_in_training: bool = True  # False: labels are shrunk to the logits' size instead (v1, v2)
    # 'dataset': by the mean and deviation of each channel over the training split.
    normalization: str = one_of(*NORMALIZATIONS, DATASET_NORMALIZATION, default="imagenet")
    compute_dtype: str = one_of(*COMPUTE_DTYPES, default="float32")  # parameters, statistics, logits stay float32
    # Parts whose activations are recomputed in the backward pass instead of being kept, as regular expressions on
    # their paths: 'backbone/.*' is each unit of the backbone, 'backbone/block3_.*' those of one stage, 'head/.*' ...
    remat: tuple[str, ...] = ()
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)
    pretrained: PretrainedConfig = field(default_factory=PretrainedConfig)
