"""FCN-8s, VGG-16, VOC 2012 trainaug: where the family came from (1411.4038, table 2).

    python main.py --config=configs/fcn8s_voc.py --workdir=runs/fcn8s_voc \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=vgg16.pth --config.model.pretrained.layout=torchvision

Takes: one GPU of 16 GB or more; 100,000 steps of one image.
val mIoU: paper's 62.7 (on a part of VOC 2011 val) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.fcn_paper("fcn.fcn8s")
