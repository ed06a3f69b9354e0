"""DeepLab v2, ResNet-101, one 3x3 at rate 12, one scale, VOC 2012 trainaug (1606.00915, table 4).

    python main.py --config=configs/v2_voc_resnet101_one_scale.py --workdir=runs/v2_voc_resnet101_one_scale \\
        --config.data.root=VOCdevkit

Takes: one GPU of 24 GB or more; 20,000 steps.
val mIoU: paper's 68.72 (without scale augmentation) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    config = common.v2_resnet101_paper("aspp_sum.large_fov_linear")
    config.model.scales = ()
    config.data.min_scale = config.data.max_scale = 1.0
    return config
