"""DeepLab v3+, Xception-65, Cityscapes, output stride 16: 'decoder' (1802.02611, table 7).

    python main.py --config=configs/v3plus_cityscapes_xception65.py --workdir=runs/v3plus_cityscapes_xception65 \\
        --config.data.root=CITYSCAPES \\
        --config.model.pretrained.source=xception_65/model.ckpt --config.model.pretrained.layout=tf_deeplab

Takes: several GPUs of 40 GB or more (batch 16); 90,000 steps.
val mIoU: paper's 78.79 | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.on_cityscapes(common.xception65_paper("v3plus.v3plus"))
