"""Parameters and multiply-adds of the papers' networks and the papers' own figures; writes docs/models.md.

    python benchmarks/model_costs.py

Only shapes are computed: half a minute, no data, no accelerator.
"""

from __future__ import annotations

import importlib
import pathlib
import sys
from collections.abc import Iterator

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from deeplab_jax.models.build import build_model  # noqa: E402
from deeplab_jax.models.cost import count_multiply_adds, count_parameters  # noqa: E402

SIZE = (513, 513)
NUM_CLASSES = 21
# Config, output stride, parameters in the paper (millions), multiply-adds in the paper (billions).
ROWS = (
    ("v1_voc_7x7", 8, "134.3", ""),
    ("v1_voc_4x4", 8, "65.1", ""),
    ("v1_voc_4x4_large_fov", 8, "65.1", ""),
    ("v1_voc_large_fov", 8, "20.5", ""),
    ("v1_voc_large_fov_msc", 8, "", ""),
    ("v2_voc_vgg16_aspp_l", 8, "", ""),
    ("v2_voc_resnet101_one_scale", 8, "", ""),
    ("v2_voc_resnet101", 8, "", ""),
    ("v3_voc_resnet50_block7", 16, "", ""),
    ("v3_voc_resnet101", 16, "", "81.02"),
    ("v3_voc_resnet101", 8, "", "276.18"),
    ("v3plus_voc", 16, "", "101.28"),
    ("v3plus_voc", 8, "", "297.92"),
    ("v3_voc_xception65", 16, "", "68.00"),
    ("v3_voc_xception65", 8, "", "240.85"),
    ("v3plus_voc_xception65", 16, "", "89.76"),
    ("v3plus_voc_xception65", 8, "", "262.59"),
    ("v3plus_voc_xception65_separable", 16, "", "54.17"),
    ("v3plus_voc_xception65_separable", 8, "", "177.10"),
    ("v3_voc_mobilenet_v2", 16, "", "2.75"),
    ("fcn8s_voc", 32, "", ""),
)

HEAD = f"""# What the networks cost

Written by `python benchmarks/model_costs.py`: {NUM_CLASSES} classes, multiply-adds of one {SIZE[0]}x{SIZE[1]} image.

The papers count what TensorFlow computed: an atrous convolution moved the map into the batch as rate x rate pieces,
with its sides rounded up to multiples of the rate (33 becomes 36 at rates 6, 12 and 18). The column 'as TensorFlow'
counts the same way and agrees with the paper within 0.3 % in every row but one. That row, ResNet-101 with decoder at
output stride 16, contradicts the paper's own table: there the decoder adds 20.26 billion, but 21.74 to the same network
at output stride 8 and 21.76 to Xception-65, although it is the same decoder on the same map.

Parameters include everything trainable, also the scales and biases of batch norm. The output stride is that of the
features; it does not change a network's parameters.

| config | output stride | parameters | paper's | multiply-adds | as TensorFlow | paper's |
|---|---|---|---|---|---|---|
"""


def rows() -> Iterator[str]:
    """The table's lines."""
    for name, output_stride, parameters, multiply_adds in ROWS:
        config = importlib.import_module(f"configs.{name}").get_config().model
        config.num_classes, config.output_stride = NUM_CLASSES, output_stride
        model = build_model(config)
        exact = count_multiply_adds(model, SIZE)
        tensorflow = count_multiply_adds(model, SIZE, space_to_batch=True) if multiply_adds else 0
        yield (
            f"| {name} | {output_stride} | {count_parameters(model):,} | {parameters and parameters + ' M'} "
            f"| {_billions(exact)} | {_billions(tensorflow)} | {multiply_adds and multiply_adds + ' B'} |\n"
        )


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count else ""


def main() -> None:
    path = REPOSITORY / "docs" / "models.md"
    path.write_text(HEAD + "".join(rows()))
    print(path.read_text())


if __name__ == "__main__":
    main()
