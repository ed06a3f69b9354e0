"""Settings of exported programs."""

import dataclasses

from deeplab_jax.fields import a_size, some_of


@dataclasses.dataclass(slots=True)
class ExportConfig:
    """What an exported file computes."""

    outputs: tuple[str, ...] = some_of("class_ids", "logits", "probabilities", default=("class_ids", "logits"))
    # (height, width) at which the network computes, which is also the largest image size. (0, 0): any size if the
    # format supports it, else inference.pad_to or data.crop_size.
    size: tuple[int, int] = a_size("any", least=2)
