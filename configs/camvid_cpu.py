"""CamVid, 11 classes, for 2 CPU cores: MobileNetV2 from ImageNet weights, half-size crops.

    python main.py --config=configs/camvid_cpu.py --workdir=runs/camvid_cpu --config.data.root=CAMVID \\
        --config.model.pretrained.source=mobilenet_v2_imagenet_tfslim_folded.npz

Takes: 21 minutes on 2 CPU cores.    val mIoU: paper's - | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config, DataConfig, InferenceConfig


def get_config() -> Config:
    config = common.mobilenet_v2_finetune()
    config.model.head.args |= {"aspp_channels": 128, "decoder_channels": 128, "atrous_rates": (3, 6, 9)}
    config.model.pretrained.layout = "tfslim_folded"
    config.data = DataConfig(dataset="camvid", batch_size=8, crop_size=(241, 321), min_scale=0.75, max_scale=1.5)
    config.optimizer.learning_rate = 0.04
    config.optimizer.warmup_steps = 50
    config.train.num_steps = 1000
    config.train.log_every = 20
    config.train.eval_every = 500
    config.train.checkpoint_every = 500
    config.inference = InferenceConfig(batch_size=4, pad_to=(369, 481))
    return config
