"""CRF-as-RNN behind FCN-8s, VOC 2012 trainaug: the paper's network (1502.03240, sec. 6 and 7).

    python main.py --config=configs/crf_rnn_voc_fcn8s.py --workdir=runs/crf_rnn_voc_fcn8s \\
        --config.data.root=VOCdevkit --config.model.pretrained.source=runs/fcn8s_voc

Takes: one GPU of 16 GB or more; steps of one image. The paper gives no number of steps: 40,000 is ours.
val mIoU: paper's 69.6 (on 346 of its images; 61.3 there with FCN-8s only) | ours not measured yet
"""

from __future__ import annotations

from configs import common
from deeplab_jax.config import Config, PartConfig, PretrainedConfig


def get_config() -> Config:
    config = common.fcn_paper("fcn.fcn8s")
    config.model.crf = PartConfig("crf_rnn.crf_rnn")
    config.model.pretrained = PretrainedConfig(layout="deeplab_jax", scope="fitting")
    # The authors' rate is a thousandth of FCN's, and that of the CRF's weights is raised again as they raised it.
    config.optimizer.learning_rate = 2e-8
    config.optimizer.learning_rate_multipliers = {
        "crf/(spatial|bilateral)_weights": 10_000.0,
        "crf/compatibility": 1_000.0,
        ".*/bias": 2.0,
    }
    config.train.num_steps = 40_000
    return config
