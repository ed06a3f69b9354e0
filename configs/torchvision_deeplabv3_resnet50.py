"""DeepLab v3, ResNet-50, as torchvision's reference script trains it on COCO with VOC's classes.

    python main.py --config=configs/torchvision_deeplabv3_resnet50.py --workdir=runs/torchvision_deeplabv3_resnet50 \\
        --config.data.root=COCO \\
        --config.model.pretrained.source=resnet50-0676ba61.pth --config.model.pretrained.layout=torchvision

Takes: several GPUs of 40 GB or more (batch 32); 86,735 steps.
val mIoU: paper's 66.4 (torchvision's) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.torchvision_reference("resnet.resnet50")
