"""Your own images and masks: a light v3+ on MobileNetV2, sized by what lies in FOLDER. Copy this file and change it.

    python main.py --config=configs/own_data.py:FOLDER --workdir=runs/own --mode=lint
    python main.py --config=configs/own_data.py:FOLDER --workdir=runs/own

FOLDER is described in docs/datasets.md; the numbers here are meant for 20 to 2,000 images. Training starts from
torchvision's ImageNet weights (14 MB, fetched once); --config.model.pretrained.source=FILE takes a copy of them.

Takes: 10 minutes and more on 2 CPU cores.    val mIoU: paper's - | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config, DataConfig, InferenceConfig, PartConfig, PretrainedConfig
from deeplab_jax.data.datasets.folder import open_dataset
from deeplab_jax.presets import PRESETS


def get_config(folder: str = "") -> Config:
    config = common.mobilenet_v2_finetune()
    config.model.head.args |= {"aspp_channels": 128, "decoder_channels": 128}
    # The conventions of the weights. Others: deeplab_jax.list_pretrained(), docs/weights.md.
    torchvision = PRESETS["torchvision"]
    config.model.backbone = PartConfig(**torchvision.part("mobilenet_v2.mobilenet_v2"))
    config.model.align_corners, config.model.normalization = torchvision.align_corners, torchvision.normalization
    config.model.pretrained = PretrainedConfig("torchvision:mobilenet_v2_imagenet_v2", "torchvision")
    config.data = DataConfig(
        dataset="folder", root=folder, batch_size=8, min_scale=0.5, max_scale=1.5, flip=True, photometric=True
    )
    # For rare classes: config.loss (docs/losses.md).
    config.optimizer.learning_rate = 0.02
    config.optimizer.warmup_steps = 50
    config.train.log_every = 20
    # For finer masks at several times the cost: scales=(0.75, 1.0, 1.25), flip=True.
    config.inference = InferenceConfig(batch_size=4)
    if folder:
        common.fit_to_images(config, open_dataset(folder, config.data.prepared_dir), num_epochs=30)
    return config
