"""DeepLab v1, VGG-16, 4x4 kernel at rate 4, multi-scale branches, VOC 2012 trainaug (1412.7062, tables 1 and 2).

    python main.py --config=configs/v1_voc_4x4_msc.py --workdir=runs/v1_voc_4x4_msc \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=vgg16.pth --config.model.pretrained.layout=torchvision

Takes: one GPU of 12 GB or more; 6,000 steps.
val mIoU: paper's 61.30, with CRF 65.21 | ours not measured yet
The authors train only the branches, from a trained network without them; this trains everything from ImageNet.
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.v1_paper("large_fov.msc_deeplab_4x4")
