"""DeepLab v3, ResNet-101, as torchvision's reference script trains it on COCO with VOC's classes.

    python main.py --config=configs/torchvision_deeplabv3_resnet101.py --workdir=runs/torchvision_deeplabv3_resnet101 \\
        --config.data.root=COCO \\
        --config.model.pretrained.source=resnet101-63fe2227.pth --config.model.pretrained.layout=torchvision

Takes: several GPUs of 40 GB or more (batch 32); 86,735 steps.
val mIoU: paper's 67.4 (torchvision's) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.torchvision_reference("resnet.resnet101")
