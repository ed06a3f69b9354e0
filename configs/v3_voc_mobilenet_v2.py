"""DeepLab v3 in its light form, MobileNetV2 with only image pooling and 1x1, VOC 2012 trainaug (1801.04381, sec. 6.3).

    python main.py --config=configs/v3_voc_mobilenet_v2.py --workdir=runs/v3_voc_mobilenet_v2 \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=mobilenet_v2_1.0_224.ckpt --config.model.pretrained.layout=tf_deeplab

Takes: one GPU of 16 GB or more; 30,000 steps.
val mIoU: paper's 75.32 (from weights trained on MS-COCO) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.v3_mobilenet_v2_paper()
