"""DeepLab v3, ResNet-50, cascaded blocks 5 to 7, VOC 2012 trainaug (1706.05587, table 1).

    python main.py --config=configs/v3_voc_resnet50_block7.py --workdir=runs/v3_voc_resnet50_block7 \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=resnet_v1_50/model.ckpt --config.model.pretrained.layout=tf_deeplab \\
        --config.model.pretrained.scope=fitting

Takes: one GPU of 40 GB or more (the paper's batch of 16 at 513x513), or several; 30,000 steps.
val mIoU: paper's 73.88 (output strides 8 to 256: 75.18, 73.88, 70.06, 59.99, 42.34, 20.29) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config, PartConfig


def get_config() -> Config:
    config = common.v3_paper("resnet.resnet50")
    config.model.backbone.args |= {"num_cascaded": 3}
    config.model.head = PartConfig("auxiliary.auxiliary", {"num_convs": 0})
    return config
