"""mmsegmentation's deeplabv3plus_r50-d8_512x512_160k_ade20k.

    python main.py --config=configs/mmseg_deeplabv3plus_r50_d8_ade20k.py \\
        --workdir=runs/mmseg_deeplabv3plus_r50_d8_ade20k --config.data.root=ADE20K \\
        --config.model.pretrained.source=resnet50_v1c.pth --config.model.pretrained.layout=mmseg

Takes: several GPUs of 40 GB or more (batch 16); 160,000 steps.
val mIoU: paper's 43.95 (mmsegmentation's) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config


def get_config() -> Config:
    return common.mmseg_v3plus_resnet50("ade20k", num_steps=160_000)
