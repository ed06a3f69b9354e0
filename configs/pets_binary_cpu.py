"""Animal against background, from masks of 0 and 255 (benchmarks/binary_pets.py makes them), for 2 CPU cores.

    python benchmarks/binary_pets.py PETS FOLDER
    python main.py --config=configs/pets_binary_cpu.py --workdir=runs/pets_binary --config.data.root=FOLDER \\
        --config.model.pretrained.source=mobilenet_v2_imagenet_tfslim_folded.npz

The masks would say that the task is binary; the config does, since its loss is for that task alone.

Takes: 450 steps on 2 CPU cores, not timed.    val mIoU: paper's - | ours 0.8230 (the object's IoU 0.7980; flip)
"""

from __future__ import annotations

from configs import pets_cpu
from deeplab_jax.config import AddedLoss, Config, InferenceConfig, LossConfig


def get_config() -> Config:
    config = pets_cpu.get_config()
    config.data.dataset = "folder"
    config.data.task = "binary"
    config.data.min_scale = 0.75
    config.loss = LossConfig(added=(AddedLoss("dice.sigmoid_dice"),))
    # Statistics of the last 20 steps: the weights move fast, and older ones are those of another network.
    config.model.batch_norm.decay = 0.95
    config.train.num_steps = 450
    config.train.eval_every = config.train.checkpoint_every = 150
    config.inference = InferenceConfig(batch_size=4, flip=True, pad_to=(321, 321))
    return config
