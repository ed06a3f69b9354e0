"""DeepLab v3, ResNet-101, Cityscapes, output stride 16 (1706.05587, sec. 4.5, table 9).

    python main.py --config=configs/v3_cityscapes_resnet101.py --workdir=runs/v3_cityscapes_resnet101 \\
        --config.data.root=CITYSCAPES \\
        --config.model.pretrained.source=resnet_v1_101_beta/model.ckpt --config.model.pretrained.layout=tf_deeplab

Takes: several GPUs of 40 GB or more (batch 16); 90,000 steps.
val mIoU: paper's 77.23 | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.on_cityscapes(common.v3_paper("resnet.resnet101_beta"))
