"""CamVid, 11 classes, for one GPU: MobileNetV2 from ImageNet weights, whole frames at several scales.

    python main.py --config=configs/camvid.py --workdir=runs/camvid --config.data.root=CAMVID \\
        --config.model.pretrained.source=mobilenet_v2_imagenet_tfslim_folded.npz

Takes: one GPU of 12 GB or more; 6,000 steps.    val mIoU: paper's - | ours not measured yet (aim: 0.68)
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config, DataConfig, InferenceConfig, TrainConfig


def get_config() -> Config:
    config = common.mobilenet_v2_finetune()
    config.model.pretrained.layout = "tfslim_folded"
    config.model.output_stride = 8
    config.model.batch_norm.decay = 0.997
    config.data = DataConfig(dataset="camvid", batch_size=16, crop_size=(361, 481), photometric=True)
    config.optimizer.learning_rate = 0.04
    config.optimizer.warmup_steps = 100
    config.train = TrainConfig(num_steps=6_000, eval_every=1_000, checkpoint_every=1_000)
    config.inference = InferenceConfig(batch_size=8, pad_to=(361, 481))
    return config
