"""DeepLab v3+ on MobileNetV2, VOC 2012 trainaug, from ImageNet weights.

    python main.py --config=configs/v3plus_voc_mobilenet_v2.py --workdir=runs/v3plus_mnv2 \\
        --config.data.root=VOCdevkit --config.model.pretrained.source=mobilenet_v2_imagenet_tfslim_folded.npz

Takes: one GPU of 12 GB or more; 30,000 steps.    val mIoU: paper's - | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    config = common.v3plus_paper()
    config.model.backbone = common.mobilenet_v2_finetune().model.backbone
    config.model.head.args = {"separable": True}
    config.model.pretrained.layout = "tfslim_folded"
    config.model.batch_norm.decay = 0.997
    config.optimizer.weight_decay = 4e-5
    return config
