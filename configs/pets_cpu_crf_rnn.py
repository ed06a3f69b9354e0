"""CRF-as-RNN behind the network of pets_cpu, trained jointly for 2 CPU cores (1502.03240 on small images).

    python main.py --config=configs/pets_cpu_crf_rnn.py --workdir=runs/pets_cpu_crf_rnn --config.data.root=PETS \\
        --config.model.pretrained.source=runs/pets_cpu

Takes: 15 minutes on 2 CPU cores.    val mIoU: paper's - | ours not measured yet
"""

from __future__ import annotations

from configs import pets_cpu
from deeplab_jax.config import Config, InferenceConfig, PartConfig, PretrainedConfig


def get_config() -> Config:
    config = pets_cpu.get_config()
    # Kernels for images of 320 pixels; the papers' are for 500.
    config.model.crf = PartConfig("crf_rnn.crf_rnn", {"bilateral_std": 40.0, "color_std": 6.0})
    config.model.pretrained = PretrainedConfig(layout="deeplab_jax", scope="fitting")
    config.model.batch_norm.frozen = True  # batches of 4 are too few for statistics
    config.data.batch_size = 4
    config.data.crop_size = (161, 161)
    config.optimizer.learning_rate = 0.002
    config.optimizer.warmup_steps = 5
    # The loss is a mean over pixels, all of which share the CRF's few weights: their gradients are small.
    config.optimizer.learning_rate_multipliers = {"crf/.*": 100.0}
    config.train.num_steps = 60
    config.train.log_every = 5
    config.train.eval_every = 60
    config.train.checkpoint_every = 30
    config.inference = InferenceConfig(batch_size=4, pad_to=(321, 321))
    return config
