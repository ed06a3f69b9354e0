"""DeepLab v3+, ResNet-101, VOC 2012 trainaug, output stride 16: the paper's table 5, row 'decoder, OS 16'.

    python main.py --config=configs/v3plus_voc.py --workdir=runs/v3plus_voc --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=resnet_v1_101_beta/model.ckpt --config.model.pretrained.layout=tf_deeplab

Takes: one GPU of 40 GB or more (the paper's batch of 16 at 513x513), or several; 30,000 steps.
val mIoU: paper's 78.85 (from ImageNet weights) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.v3plus_paper()
