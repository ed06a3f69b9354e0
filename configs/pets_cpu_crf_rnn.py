"""CRF-as-RNN behind the published 257-pixel network, trained jointly on Oxford pets, for 2 CPU cores (1502.03240).

    python main.py --config=configs/pets_cpu_crf_rnn.py --workdir=runs/pets_cpu_crf_rnn --config.data.root=PETS \\
        --config.model.pretrained.source=deeplabv3_257_mv_gpu.tflite

Takes: 3 minutes on 2 CPU cores.    val mIoU: paper's - | ours 0.3675 over 21 classes, 3 of them present: docs/crf.md
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
    PretrainedConfig,
    TrainConfig,
)


def get_config() -> Config:
    backbone = {"padding": "tf_same", "expand_first": False, "epsilon": 1e-3, "width": 0.5, "divisor": 1}
    return Config(
        model=ModelConfig(
            backbone=PartConfig("mobilenet_v2.mobilenet_v2", backbone),
            head=PartConfig("aspp.aspp", {"epsilon": 1e-5, "atrous_rates": (), "separable": False}),
            # Kernel widths for images of 320 pixels (the papers' are for 500), and low weights for training to raise.
            crf=PartConfig(
                "crf_rnn.crf_rnn",
                {"spatial_weight": 1.0, "bilateral_weight": 2.0, "bilateral_std": 40.0, "color_std": 6.0},
            ),
            output_stride=8,
            normalization="minus_one_to_one",
            batch_norm=BatchNormConfig(frozen=True),  # batches of 4 are too few for statistics
            pretrained=PretrainedConfig(layout="tflite", scope="fitting", calibration_batches=1),
        ),
        data=DataConfig(dataset="voc", batch_size=4, crop_size=(129, 129), min_scale=0.5, max_scale=1.0),
        # The loss is a mean over pixels, so the CRF's few weights, which all pixels share, need a higher rate.
        optimizer=OptimizerConfig(learning_rate=2e-4, clip_norm=1.0, learning_rate_multipliers={"crf/.*": 100.0}),
        train=TrainConfig(num_steps=40, log_every=5, eval_every=40, checkpoint_every=40),
        inference=InferenceConfig(batch_size=4, pad_to=(321, 321)),
    )
