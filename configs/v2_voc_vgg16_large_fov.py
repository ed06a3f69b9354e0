"""DeepLab v2, VGG-16, LargeFOV, VOC 2012 trainaug (1606.00915, table 3).

    python main.py --config=configs/v2_voc_vgg16_large_fov.py --workdir=runs/v2_voc_vgg16_large_fov \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=vgg16.pth --config.model.pretrained.layout=torchvision

Takes: one GPU of 12 GB or more; 20,000 steps.
val mIoU: paper's 65.76, with CRF 69.84 | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.v2_vgg16_paper("large_fov.large_fov")
