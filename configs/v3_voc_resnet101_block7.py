"""DeepLab v3, ResNet-101, cascaded blocks 5 to 7, multi-grid (1, 2, 1), VOC 2012 trainaug (1706.05587, tables 2 to 4).

    python main.py --config=configs/v3_voc_resnet101_block7.py --workdir=runs/v3_voc_resnet101_block7 \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=resnet_v1_101/model.ckpt --config.model.pretrained.layout=tf_deeplab \\
        --config.model.pretrained.scope=fitting

Takes: one GPU of 40 GB or more (the paper's batch of 16 at 513x513), or several; 30,000 steps.
val mIoU: paper's 76.66; at output stride 8, with scales and flip, 79.35 | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config, PartConfig


def get_config() -> Config:
    config = common.v3_paper("resnet.resnet101")
    config.model.backbone.args |= {"multi_grid": (1, 2, 1), "num_cascaded": 3}
    config.model.head = PartConfig("auxiliary.auxiliary", {"num_convs": 0})
    return config
