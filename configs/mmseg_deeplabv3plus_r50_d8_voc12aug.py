"""mmsegmentation's deeplabv3plus_r50-d8_512x512_40k_voc12aug.

    python main.py --config=configs/mmseg_deeplabv3plus_r50_d8_voc12aug.py \\
        --workdir=runs/mmseg_deeplabv3plus_r50_d8_voc12aug --config.data.root=VOCdevkit \\
        --config.model.pretrained.source=resnet50_v1c.pth --config.model.pretrained.layout=mmseg

Takes: several GPUs of 40 GB or more (batch 16); 40,000 steps.
val mIoU: paper's 76.81 (mmsegmentation's) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.mmseg_v3plus_resnet50("voc", num_steps=40_000)
