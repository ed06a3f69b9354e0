"""Recipes that several experiments share; a config file takes one and changes what is its own."""

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


def v3plus_paper() -> Config:
    """DeepLab v3+ as trained for the paper's VOC tables (1802.02611, sec. 4): batch 16, crop 513, 30,000 steps."""
    return Config(
        model=ModelConfig(
            backbone=PartConfig("resnet.resnet101_beta", {"multi_grid": (1, 2, 4)}),
            head=PartConfig("v3plus.v3plus"),
            normalization="minus_one_to_one",
            batch_norm=BatchNormConfig(decay=0.9997),
        ),
        data=DataConfig(dataset="voc", train_split="trainaug", eval_split="val", batch_size=16, crop_size=(513, 513)),
        optimizer=OptimizerConfig(learning_rate=0.007, weight_decay=1e-4),
        train=TrainConfig(num_steps=30_000),
        inference=InferenceConfig(pad_to=(513, 513)),
    )


def mobilenet_v2_finetune() -> Config:
    """A light v3+ on MobileNetV2, to be fine-tuned from ImageNet weights on a small data set.

    Batch norm decays fast, since such runs are short; the head, which starts from nothing, learns faster.
    """
    return Config(
        model=ModelConfig(
            backbone=PartConfig("mobilenet_v2.mobilenet_v2"),
            head=PartConfig("v3plus.v3plus", {"separable": True, "logits_stddev": 0.06}),
            normalization="minus_one_to_one",
            batch_norm=BatchNormConfig(decay=0.99),
        ),
        optimizer=OptimizerConfig(learning_rate=0.01, weight_decay=4e-5),
    )
