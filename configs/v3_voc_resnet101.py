"""DeepLab v3, ResNet-101, ASPP with image pooling, multi-grid (1, 2, 4), VOC 2012 trainaug (1706.05587,
tables 5 and 6).

    python main.py --config=configs/v3_voc_resnet101.py --workdir=runs/v3_voc_resnet101 \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=resnet_v1_101_beta/model.ckpt --config.model.pretrained.layout=tf_deeplab

Takes: one GPU of 40 GB or more (the paper's batch of 16 at 513x513), or several; 30,000 steps.
val mIoU: paper's 77.21; at output stride 8 78.51, with scales and flip 79.77 | ours not measured yet
Output stride 8: --mode=evaluate --config.model.output_stride=8 on the same checkpoint.
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    config = common.v3_paper("resnet.resnet101_beta")
    config.model.backbone.args |= {"multi_grid": (1, 2, 4)}
    return config
