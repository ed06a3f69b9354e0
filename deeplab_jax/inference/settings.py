"""Settings of prediction and evaluation, and of the CRF parameter search."""

import dataclasses
from dataclasses import field

from deeplab_jax.canvas import Canvas, make_canvas
from deeplab_jax.fields import a_size, above, at_least, checked, each_above, one_of
from deeplab_jax.types import COMPUTE_DTYPES


@dataclasses.dataclass(slots=True)
class MeasureConfig:
    """What evaluation measures in addition to IoU and accuracies; docs/evaluation.md explains each."""

    boundary_iou: bool = False
    trimap: bool = False  # mean IoU near boundaries, 1 to 40 pixels wide
    # 'void': the unlabelled border of objects; 'labels': where the label changes; 'auto': 'void' if there is one.
    trimap_around: str = one_of("auto", "void", "labels", default="auto")
    calibration: bool = False
    overlap: bool = True  # Dice (F1), precision, recall, specificity; IoU and Dice as means over images
    kappa: bool = False
    surface: bool = False  # HD95 and surface Dice, of each image
    surface_tolerance: float = at_least(0, default=2.0)  # pixels between outlines that the surface Dice forgives
    # The threshold with the greatest IoU of each class of a sigmoid; --mode=evaluate keeps it in the workdir.
    best_threshold: bool = False

    @property
    def need_maps(self) -> bool:
        """Whether class maps must be transferred to the host."""
        return self.boundary_iou or self.trimap or self.surface


@dataclasses.dataclass(slots=True)
class InferenceConfig:
    """How images go through the network."""

    protocol: str = ""  # name of the protocol behind these settings; set by --protocols
    batch_size: int = at_least(1, default=8)
    # Scales of the image over which class probabilities are averaged.
    scales: tuple[float, ...] = each_above(0, default=(1.0,), empty=False, words="positive factors")
    flip: bool = False  # average over the mirrored image too
    # Above which probability a class of a sigmoid is there: one for all classes or one for each. Empty: what
    # `measures.best_threshold` kept in the workdir, else 0.5.
    threshold: tuple[float, ...] = checked(
        lambda values: all(0 < value < 1 for value in values), "between 0 and 1, each", default=()
    )
    threshold_split: str = ""  # on which the threshold was chosen; set with one that a workdir keeps
    fuse: str = one_of("mean", "max", default="mean")  # of probabilities; 'max': of logits, as v2 fuses scales
    window: tuple[int, int] = a_size("whole images")  # (height, width) that the network sees at a time
    stride: tuple[int, int] = a_size("two thirds of the window")  # pixels between two windows
    # How overlapping windows are averaged: 'smooth' favours each window's centre, 'uniform' weights all pixels equally.
    blend: str = one_of("smooth", "uniform", default="smooth")
    compute_dtype: str = one_of("", *COMPUTE_DTYPES, default="")  # '': the model's
    # CRF that refines the result: a preset of ops/crf/parameters.py, e.g. 'v2_resnet101', or a crf_search.json.
    crf: str = ""
    # (height, width) to which images are padded at the bottom and right; a larger side grows by multiples of `bucket`.
    # (0, 0): each side is padded to bucket * k + 1, so that few sizes are compiled.
    pad_to: tuple[int, int] = a_size("buckets")
    bucket: int = at_least(1, default=64)
    # Resize so that the shorter side is `resize_shorter` px and the longer at most `resize_longer` px; 0: keep the
    # size, no bound. Results are resized back to the image's own size.
    resize_shorter: int = at_least(0, default=0)
    resize_longer: int = at_least(0, default=0)
    resize_antialias: bool = True  # when shrinking: smooth (Pillow, torchvision) or not (OpenCV, mmsegmentation)
    resize_labels: bool = False  # score at the resized labels, as some scripts do; not comparable with other scores
    center_crop: tuple[int, int] = a_size("whole images")  # (height, width) to score; not comparable with other scores
    measures: MeasureConfig = field(default_factory=MeasureConfig)

    @property
    def at_own_size(self) -> bool:
        """Whether images are computed at their own size, each size by a program of its own."""
        return self.pad_to == (0, 0) and self.bucket == 1

    @property
    def canvas(self) -> Canvas:
        """The canvas on which images are computed."""
        return make_canvas(self.pad_to, self.bucket)

    @property
    def window_stride(self) -> tuple[int, int]:
        """Pixels between two windows: `stride`, or the usual two thirds of the window; 341 for 512."""
        if self.stride != (0, 0):
            return self.stride
        height, width = (max(1, axis * 2 // 3) for axis in self.window)
        return height, width


@dataclasses.dataclass(slots=True)
class CRFSearchConfig:
    """The grid of --mode=crf-search: the papers' ranges (v2, sec. 4.1.1)."""

    num_images: int = at_least(0, default=100, words="0 (all) or more")  # evenly spaced in the evaluation split
    bi_w: tuple[float, ...] = each_above(0, default=(3.0, 4.0, 5.0, 6.0), empty=False)  # w1
    # sigma_alpha, pixels
    bi_xy_std: tuple[float, ...] = each_above(0, default=(30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0), empty=False)
    bi_rgb_std: tuple[float, ...] = each_above(0, default=(3.0, 4.0, 5.0, 6.0), empty=False)  # sigma_beta, grey levels
    num_refinements: int = at_least(0, default=1)  # further grids around the best point, each half as wide
    pos_w: float = at_least(0, default=3.0)  # w2
    pos_xy_std: float = above(0, default=3.0)  # sigma_gamma, pixels
    num_iterations: int = at_least(1, default=10)  # of mean field
