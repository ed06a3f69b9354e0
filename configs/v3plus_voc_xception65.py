"""DeepLab v3+, Xception-65, VOC 2012 trainaug (1802.02611, table 5).

    python main.py --config=configs/v3plus_voc_xception65.py --workdir=runs/v3plus_voc_xception65 \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=xception_65/model.ckpt --config.model.pretrained.layout=tf_deeplab

Takes: one GPU of 40 GB or more (the paper's batch of 16 at 513x513), or several; 30,000 steps.
val mIoU: paper's 79.93; at output stride 8 80.22, with scales and flip 81.63 | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.xception65_paper("v3plus.v3plus")
