"""DeepLab v2, ResNet-101 with ASPP, PASCAL-Person-Part (1606.00915, table 6): three scales.

    python main.py --config=configs/v2_person_part_resnet101.py --workdir=runs/v2_person_part_resnet101 \\
        --config.data.root=VOCdevkit

Takes: one GPU of 24 GB or more; 20,000 steps.
val mIoU: paper's 62.76 (from weights trained on MS-COCO) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    config = common.v2_resnet101_paper("aspp_sum.aspp_sum")
    config.data.dataset, config.data.train_split = "pascal_person_part", "train"
    return config
