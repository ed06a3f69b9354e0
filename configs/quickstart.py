"""The demo: a small v3+ trained from scratch on scenes that the project renders itself.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

Takes: 3 minutes on 2 CPU cores; no download.    val mIoU: paper's - | ours 0.9235
"""

from __future__ import annotations

from deeplab_jax.config import (
    BatchNormConfig,
    Config,
    DataConfig,
    InferenceConfig,
    ModelConfig,
    OptimizerConfig,
    PartConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        model=ModelConfig(
            backbone=PartConfig(
                "resnet.ResNet",
                {
                    "num_units": (2, 2, 2, 2),
                    "multi_grid": (1, 2),
                    "stem": "beta",
                    "strided_unit": "first",
                    "width": 0.25,
                },
            ),
            # A network trained from scratch needs larger initial logits than the papers', which start pretrained.
            head=PartConfig(
                "v3plus.v3plus",
                {"aspp_channels": 64, "decoder_channels": 64, "logits_stddev": 0.125, "atrous_rates": (2, 3, 5)},
            ),
            normalization="minus_one_to_one",
            batch_norm=BatchNormConfig(decay=0.95),
        ),
        data=DataConfig(dataset="shapes", batch_size=8, crop_size=(129, 161), min_scale=0.75, max_scale=1.5),
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.003, weight_decay=0.01),
        train=TrainConfig(num_steps=600, log_every=20, eval_every=300, checkpoint_every=300),
        inference=InferenceConfig(batch_size=16, pad_to=(129, 161)),
    )
