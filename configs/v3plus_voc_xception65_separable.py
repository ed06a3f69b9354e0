"""DeepLab v3+, Xception-65, atrous separable convolution in ASPP and decoder, VOC 2012 trainaug (1802.02611, table 5).

    python main.py --config=configs/v3plus_voc_xception65_separable.py --workdir=runs/v3plus_voc_xception65_separable \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=xception_65/model.ckpt --config.model.pretrained.layout=tf_deeplab

Takes: one GPU of 40 GB or more (the paper's batch of 16 at 513x513), or several; 30,000 steps.
val mIoU: paper's 79.79; at output stride 8 80.02, with scales and flip 81.39 | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    config = common.xception65_paper("v3plus.v3plus")
    config.model.head.args |= {"separable": True}
    return config
