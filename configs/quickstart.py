"""The demo: a small v3+ trained from nothing on scenes that the project renders itself.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

Takes: some minutes on 2 CPU cores; no download.    val mIoU: paper's - | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config, DataConfig, InferenceConfig


def get_config() -> Config:
    config = common.mobilenet_v2_finetune()
    config.model.backbone.args = {"width": 0.5}
    config.model.head.args |= {"aspp_channels": 64, "decoder_channels": 64, "low_level_channels": 24}
    config.model.output_stride = 8
    config.data = DataConfig(dataset="shapes", batch_size=8, crop_size=(129, 161), min_scale=0.75, max_scale=1.5)
    config.optimizer.learning_rate = 0.05
    config.optimizer.warmup_steps = 30
    config.train.num_steps = 600
    config.train.log_every = 20
    config.train.eval_every = 300
    config.train.checkpoint_every = 300
    config.inference = InferenceConfig(batch_size=16, pad_to=(128, 160))
    return config
