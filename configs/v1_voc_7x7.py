"""DeepLab v1, VGG-16, 7x7 kernel at rate 4, VOC 2012 trainaug (1412.7062, tables 1 and 2).

    python main.py --config=configs/v1_voc_7x7.py --workdir=runs/v1_voc_7x7 \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=vgg16.pth --config.model.pretrained.layout=torchvision

Takes: one GPU of 12 GB or more; 6,000 steps.
val mIoU: paper's 64.38, with CRF 67.64 | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.v1_paper("large_fov.deeplab_7x7")
