"""DeepLab v2, ResNet-101 with ASPP, COCO-Stuff: v2's recipe for 100,000 steps, as kazuto trains it on 164k images.

    python main.py --config=configs/v2_coco_stuff_resnet101.py --workdir=runs/v2_coco_stuff_resnet101 \\
        --config.data.root=COCO

Takes: one GPU of 24 GB or more; 100,000 steps.
val mIoU: paper's - (kazuto's 39.1) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    config = common.v2_resnet101_paper("aspp_sum.aspp_sum")
    config.data.dataset, config.data.train_split = "coco_stuff", "train"
    config.train.num_steps = 100_000
    return config
