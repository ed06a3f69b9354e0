"""DeepLab v1, VGG-16, 4x4 kernel at rate 4, VOC 2012 trainaug (1412.7062, tables 1 and 2).

    python main.py --config=configs/v1_voc_4x4.py --workdir=runs/v1_voc_4x4 \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=vgg16.pth --config.model.pretrained.layout=torchvision

Takes: one GPU of 12 GB or more; 6,000 steps.
val mIoU: paper's 59.80, with CRF 63.74 | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.v1_paper("large_fov.deeplab_4x4")
