"""DeepLab v3+, ResNet-101, VOC 2012 trainaug, at batch sizes of 16 to 1024 for the same number of epochs.

    python main.py --config=configs/v3plus_voc_large_batch.py:256 --workdir=runs/v3plus_voc_256 \\
        --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=resnet_v1_101_beta/model.ckpt --config.model.pretrained.layout=tf_deeplab

Takes: 1 device for 16 images, 64 for 1024; docs/scaling.md lists steps, learning rate and warm-up for each size.
val mIoU: paper's 78.85 at batch 16 | ours not measured yet at any
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config(batch_size: str = "64") -> Config:
    return common.for_batch_size(common.v3plus_paper(), int(batch_size), num_images=10_582)
