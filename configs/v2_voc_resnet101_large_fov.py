"""DeepLab v2, ResNet-101, one 3x3 at rate 12, three scales, VOC 2012 trainaug (1606.00915, table 4).

    python main.py --config=configs/v2_voc_resnet101_large_fov.py --workdir=runs/v2_voc_resnet101_large_fov \\
        --config.data.root=VOCdevkit

Takes: one GPU of 24 GB or more; 20,000 steps.
val mIoU: paper's 75.54 | ours not measured yet
The paper's figure is from weights trained on MS-COCO.
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.v2_resnet101_paper("aspp_sum.large_fov_linear")
