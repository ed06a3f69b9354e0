"""Shared types: images, labels, batches, features and data sets.

Nothing here creates an array or imports jax, so that the workers of the input pipeline, which use only NumPy, can
import it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Num, UInt8, UInt16

if TYPE_CHECKING:
    from jax import Array
else:
    Array = Any

# RGB in [0, 255], or a data set's other channels, in its own units.
Image = UInt8[Array, "b h w bands"] | UInt16[Array, "b h w bands"] | Float[Array, "b h w bands"]
Pixels = Num[np.ndarray, "h w bands"]  # one image, in the data set's type
Pixel = tuple[float, ...]  # one value for each channel
Label = Integer[
    Array, "b h w *maps"
]  # class ids; in a multilabel task a map for each class, 0 or 1; or the ignore label
BatchLabel = UInt8[Array | np.ndarray, "b h w *maps"] | UInt16[Array | np.ndarray, "b h w *maps"]
ImageLabel = UInt8[np.ndarray, "h w *maps"] | UInt16[np.ndarray, "h w *maps"]  # one image's; see `label_dtype`
Logits = Float[Array, "b h w classes"]  # float32 whatever the compute dtype
Features = Mapping[str, Float[Array, "b _h _w _c"]]  # keyed as FeatureInfo.name
Variables = Mapping[str, Any]  # Flax collections: {'params': ..., 'batch_stats': ...}
Metrics = Mapping[str, Float[Array, ""]]

BN_DECAY = "bn_decay"  # collection with a decay for each batch norm, in place of its options'
MOMENTS = "bn_moments"  # collection: moments of each batch norm's input, recorded if it is mutable
SIDE_LOGITS = "side_logits"  # collection: further logits to compare with the label, besides the output


class UserError(Exception):
    """A mistake that the user can fix.

    Its text is one line that names the thing, the place and the remedy; the command line prints it and exits with
    status 2, without a traceback.

    Example:
      >>> import deeplab_jax as dl
      >>> try:
      ...     dl.load("none.pth")
      ... except dl.UserError as error:
      ...     print(error)
      none.pth: no such file or folder; name a file
    """

    def __str__(self) -> str:
        """The text, in which names from files cannot command the terminal."""
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in super().__str__())


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureInfo:
    """Description of one feature map of a backbone."""

    name: str  # 'stride4', 'stride8', ...; or e.g. 'penultimate', if a stride has more than one useful map
    channels: int
    stride: int  # input pixels per feature cell, per axis


def find_feature(feature_info: tuple[FeatureInfo, ...], name: str) -> FeatureInfo:
    """The feature map called `name`; a backbone's deepest is always the last.

    Raises:
      ValueError: if the backbone has none of that name.
    """
    for info in feature_info:
        if info.name == name:
            return info
    raise ValueError(f"no feature map '{name}': the backbone has {', '.join(info.name for info in feature_info)}")


@dataclasses.dataclass(frozen=True, slots=True)
class Normalization:
    """Per-channel affine map: (pixel - mean) / std, in the images' own units: [0, 255] for RGB bytes."""

    mean: Pixel
    std: Pixel

    @property
    def pad_pixel(self) -> Pixel:
        """The integers that normalise to (nearly) zero, used for padding."""
        return tuple(round(value) for value in self.mean)


NORMALIZATIONS: Mapping[str, Normalization] = {
    # torchvision, timm, GluonCV
    "imagenet": Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    # tensorflow/models: x / 127.5 - 1 (MobileNet, Xception, the beta ResNets)
    "minus_one_to_one": Normalization((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    # MobileViT: x / 255
    "zero_to_one": Normalization((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    # TF-slim's ResNet v1: only the mean
    "slim_mean": Normalization((123.15, 115.90, 103.06), (1.0, 1.0, 1.0)),
    # Caffe: only the mean (its BGR order is undone in the kernel that reads the image)
    "caffe_mean": Normalization((122.675, 116.669, 104.008), (1.0, 1.0, 1.0)),
}
COMPUTE_DTYPES = ("float32", "bfloat16")
# One class per pixel (softmax); an object and its background (one logit, sigmoid); classes that overlap (sigmoids).
TASKS = ("multiclass", "binary", "multilabel")
DATASET_NORMALIZATION = "dataset"  # instead of one of these: the data set's own means and standard deviations


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known about a data set without opening it."""

    name: str
    num_classes: int
    ignore_label: int
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]  # RGB per class id
    splits: Mapping[str, int]  # split name -> number of images
    channels: int = 3  # of its images
    dtype: str = "uint8"  # of its images; or 'uint16' or 'float32'
    channel_mean: Pixel = ()  # over the training split, if the network's normalisation needs it
    channel_std: Pixel = ()
    task: str = "multiclass"  # one of TASKS; 'binary' has two classes, the background and the object, in this order

    @property
    def num_outputs(self) -> int:
        """Channels of the logits: one in a binary task, that of the object; else one per class."""
        return 1 if self.task == "binary" else self.num_classes

    @property
    def label_maps(self) -> tuple[int, ...]:
        """A label's shape beyond height and width: a map for each class where classes may overlap, else ()."""
        return (self.num_classes,) if self.task == "multilabel" else ()

    @property
    def label_dtype(self) -> str:
        """Of its labels: 'uint8', or 'uint16' where class ids or the ignore label are above 255."""
        return "uint16" if max(self.ignore_label, self.num_classes - 1 if not self.label_maps else 1) > 255 else "uint8"

    @property
    def is_rgb(self) -> bool:
        """Whether its images are uint8 RGB, for which published weights and most settings are made."""
        return self.channels == 3 and self.dtype == "uint8"


class WeightRule(NamedTuple):
    """The destination of one kind of foreign array: a name that `pattern` fully matches becomes the path `target`."""

    pattern: str  # regular expression with groups
    target: str  # 'params/...' or 'batch_stats/...'; {1} is the first group, {1+1} the number in it plus one
    transform: str  # how its axes are permuted; see weights/rules.py


ArrayShapes = Mapping[str, tuple[int, ...]]  # foreign name -> shape


@dataclasses.dataclass(frozen=True, slots=True)
class WeightLayout:
    """How a file names and shapes its weights, and the network they need.

    Attributes:
      rules: tried in order; the first match counts.
      ignored: names without a counterpart here (a classifier, optimizer slots).
      model: fields of the model's config, as nested dicts; without 'head' if the file holds only a backbone.
      folded: whether batch norm is folded into the convolutions' kernels and biases.
      notes: a line each for what another network with the same names would have otherwise.
      ported: arguments of the backbone in its port from TensorFlow, which has the same names and shapes; empty: none.
    """

    rules: tuple[WeightRule, ...]
    ignored: tuple[str, ...]
    model: Mapping[str, Any]
    folded: bool = False
    notes: tuple[str, ...] = ()
    ported: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class PeerNetwork(NamedTuple):
    """A network of another system that computes the same as ours: the result of a layout's `peer`.

    Attributes:
      layout: its names, and the settings with which ours computes the same.
      constructor: Python code that builds it there; images and logits are as in its documentation.
    """

    layout: WeightLayout
    constructor: str


class Batch(NamedTuple):
    """One batch, as the loader returns it (NumPy) and the step takes it (sharded)."""

    image: Num[Array | np.ndarray, "b h w bands"]  # in the data set's type; the model normalises them
    label: BatchLabel  # class ids, or 0 and 1 for each class; or ignore_label
    valid: Bool[Array | np.ndarray, " b"]  # False for rows that pad the last batch


class WindowBatch(NamedTuple):
    """One batch before augmentation: windows of the originals, each in the top left corner of a canvas of one size.

    `ops.augment.augment` turns it into crops on the devices.
    """

    image: Num[Array | np.ndarray, "b h w bands"]
    label: BatchLabel
    valid: Bool[Array | np.ndarray, " b"]
    geometry: Int[Array | np.ndarray, "b 5"]  # int32: window's height and width, its size in the crop, 1 if mirrored
    # float32: brightness, contrast, saturation, hue (in 2 degrees), 1 if contrast comes first
    colors: Float[Array | np.ndarray, "b 5"]


class Example(NamedTuple):
    """One decoded sample at its original size."""

    name: str
    image: Num[np.ndarray, "h w bands"]
    label: ImageLabel


@runtime_checkable
class ExampleSource(Protocol):
    """Random access to the samples of one split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@runtime_checkable
class Loader(Protocol):
    """An endless iterator of batches whose position is a single number.

    The batch at position k depends only on the seed and k, never on the number of workers.
    """

    def __iter__(self) -> Iterator[Batch | WindowBatch]: ...

    def __next__(self) -> Batch | WindowBatch: ...

    def names_at(self, position: int) -> tuple[str, ...]:
        """Names of the files in the batch at `position`."""
        ...

    def get_state(self) -> dict[str, int]: ...

    def set_state(self, state: Mapping[str, int]) -> None: ...


@runtime_checkable
class ApplyFn(Protocol):
    """`module.apply` of a network: logits, or (logits, updated collections) if some are mutable."""

    def __call__(
        self,
        variables: Variables,
        images: Num[Array | np.ndarray, "b h w bands"],
        *,
        train: bool,
        mutable: Sequence[str] = ...,
        rngs: dict[str, Array] | None = None,
    ) -> Any: ...
