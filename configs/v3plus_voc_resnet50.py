"""DeepLab v3+, ResNet-50, VOC 2012 trainaug, output stride 16.

    python main.py --config=configs/v3plus_voc_resnet50.py --workdir=runs/v3plus_r50 --config.data.root=VOCdevkit

Takes: one GPU of 24 GB or more, or several; 30,000 steps.    val mIoU: paper's - | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    config = common.v3plus_paper()
    config.model.backbone.name = "resnet.resnet50_beta"
    return config
