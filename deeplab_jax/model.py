"""A network with its weights, classes and conventions: from a workdir or a file to masks, and back to a file."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import jax
import numpy as np
from clu import parameter_overview
from jaxtyping import Array, UInt8
from numpy.typing import ArrayLike

from deeplab_jax import visualize
from deeplab_jax.apps.assembly import network
from deeplab_jax.apps.assembly.compiled_network import CompiledNetwork, Mask, Probabilities, value_errors, with_options
from deeplab_jax.apps.assembly.kept_threshold import with_kept_threshold
from deeplab_jax.apps.assembly.model_card import NO_LICENSE
from deeplab_jax.apps.assembly.named_parts import describe_network, follow_file, new_info
from deeplab_jax.apps.assembly.source_network import say_own_size
from deeplab_jax.apps.assembly.trained import read_config
from deeplab_jax.apps.import_weights import pretrained_variables
from deeplab_jax.apps.network_files import Network, read_network, write_network
from deeplab_jax.config import Config, PretrainedConfig
from deeplab_jax.data.sources.given_images import GivenImage, check_batch, read_image
from deeplab_jax.models.cost import count_multiply_adds
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.train.checkpoint import FOLDER
from deeplab_jax.train.state import create_variables
from deeplab_jax.types import DATASET_NORMALIZATION, NORMALIZATIONS, DatasetInfo, Features, Normalization, Variables
from deeplab_jax.validation import validate
from deeplab_jax.weights.source_settings import SourceSettings

_OF_THE_SOURCE = ("output_stride", "atrous_rates", "normalization", "align_corners", "ported")  # options of `load`

GivenImages = list[GivenImage] | tuple[GivenImage, ...]


@dataclasses.dataclass(frozen=True)
class _Row:
    part: str
    output: str
    parameters: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights and classes; `load` and `create` make them.

    Attributes:
      module: images [b, h, w, c] -> logits [b, h, w, classes], a Flax module: `module.apply(variables, images)`.
      variables: {'params': ..., 'batch_stats': ...}, on the device.
      config: what it was made by. `config.model` describes the network, `config.inference` how images go through it
        where a call says nothing else.
      info: its classes, their colours, and the kind of its images.

    Example:
      >>> import deeplab_jax as dl
      >>> import numpy as np
      >>> small = {"aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4}
      >>> model = dl.create("v3plus", backbone="mobilenet_v2", num_classes=3, head_args=small)
      >>> model
      Model('v3plus.v3plus' on 'mobilenet_v2.mobilenet_v2', 3 classes, output stride 16)
      >>> image = np.zeros((48, 64, 3), np.uint8)
      >>> mask = model.segment(image)
      >>> mask.shape, mask.dtype
      ((48, 64), dtype('uint8'))
      >>> model.overlay(image, mask).shape
      (48, 64, 3)
      >>> {name: feature.shape for name, feature in model.features(image[None]).items()}
      {'stride4': (1, 12, 16, 24), 'stride8': (1, 6, 8, 32), 'stride16': (1, 3, 4, 320)}
    """

    module: DeepLab
    variables: Variables
    config: Config
    info: DatasetInfo
    _programs: dict[str, CompiledNetwork] = dataclasses.field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        model = self.config.model
        parts = f"'{model.head.name}' on '{model.backbone.name}'"
        return f"Model({parts}, {self.info.num_classes} classes, output stride {model.output_stride})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names; a class's id is its place."""
        return self.info.class_names

    @property
    def normalization(self) -> Normalization:
        """What the network does to images before anything else."""
        return self.module.normalization

    @overload
    def segment(self, image: GivenImage, **options: Any) -> Mask: ...
    @overload
    def segment(self, image: GivenImages, **options: Any) -> list[Mask]: ...
    def segment(self, image: Any, **options: Any) -> Mask | list[Mask]:
        """The class id of each pixel, [height, width], uint8 (int32 for more than 256 classes).

        A binary network gives 1 for the object and 0 for the background; one of classes that overlap gives bool
        [height, width, classes], which classes there are at each pixel. Both take the option `threshold`.

        Args:
          image: a path, a PIL image or uint8 [height, width, 3]; or a list of these, which then gives a list. Images of
            a list that are computed at one size share batches of `config.inference.batch_size`.
          **options: of `config.inference` (scales, flip, window, crf, ...) for this call.

        Raises:
          UserError: for a file that cannot be read.
          ValueError: for an array that is no such image, or an option that does not exist or cannot work.
        """
        return self._run(CompiledNetwork.segment, image, options)

    @overload
    def probabilities(self, image: GivenImage, **options: Any) -> Probabilities: ...
    @overload
    def probabilities(self, image: GivenImages, **options: Any) -> list[Probabilities]: ...
    def probabilities(self, image: Any, **options: Any) -> Probabilities | list[Probabilities]:
        """The probability of each class at each pixel, float32 [height, width, classes]; arguments as `segment`.

        Those of a binary network are two, of the background and of the object; they sum to 1 unless classes overlap.
        """
        return self._run(CompiledNetwork.probabilities, image, options)

    def features(self, images: ArrayLike) -> Features:
        """The backbone's feature maps, float32 or as it computes, by name: 'stride4', 'stride8', ...

        Args:
          images: a batch, uint8 [batch, height, width, 3].

        Raises:
          ValueError: where it is no such batch.
        """
        found = self._features(self.variables, check_batch(images, self.info))
        return {info.name: found[info.name] for info in self.module.backbone.feature_info}

    def overlay(self, image: GivenImage, mask: Mask) -> UInt8[np.ndarray, "h w 3"]:
        """The image tinted by class, in the colours of `info.palette`.

        Raises:
          ValueError: where the mask has another size than the image, or is not one of class ids.
        """
        pixels, ids = visualize.as_rgb(read_image(image, self.info)), np.asarray(mask)
        is_map = ids.dtype.kind == "b" and ids.ndim == 3 and ids.shape[-1] == self.info.num_classes
        if not (is_map if self.info.task == "multilabel" else ids.dtype.kind in "ui" and ids.ndim == 2):
            wanted = "bool [height, width, classes]" if self.info.task == "multilabel" else "class ids [height, width]"
            raise ValueError(f"expected a mask of {wanted}, as segment gives it; got {ids.dtype} {list(ids.shape)}")
        return visualize.overlay(pixels, ids, self.info.palette, ignore_label=self.info.ignore_label)

    def summary(self, size: tuple[int, int] = (513, 513)) -> str:
        """The network as a table: its parts with outputs, parameters and multiply-adds on an image, then each array.

        Args:
          size: (height, width) of the image.
        """
        images = jax.ShapeDtypeStruct((1, *size, self.info.channels), self.info.dtype)
        maps = jax.eval_shape(self._features, self.variables, images)
        logits = jax.eval_shape(lambda v, x: self.module.apply(v, x, train=False), self.variables, images)
        names = [info.name for info in self.module.backbone.feature_info]
        outputs = {"backbone": ", ".join(f"{name} {list(maps[name].shape[1:])}" for name in names)}
        params = self.variables["params"]
        rows = [
            _Row(
                part,
                outputs.get(part, str(list(logits.shape[1:]))),
                int(parameter_overview.count_parameters(params[part])),
                count_multiply_adds(self.module, size, part=part),
            )
            for part in params
        ]
        total = _Row("all", "", sum(row.parameters for row in rows), count_multiply_adds(self.module, size))
        table = parameter_overview.make_table([*rows, total])
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        return f"{self!r} on an image of {size[0]} x {size[1]}\n{table}\n{overview}"

    def save(self, path: str | os.PathLike[str], layout: str = "", license_id: str = NO_LICENSE) -> list[pathlib.Path]:
        """Writes a file, or a folder, that `load` takes back and that needs nothing else.

        Args:
          path: 'NAME.safetensors', or a folder, which gets a model card too.
          layout: whose names the arrays get ('torchvision', ...); '': this project's.
          license_id: of the weights, for the model card, as hubs spell it ('apache-2.0').

        Returns:
          The files that were written.

        Raises:
          UserError: where the path cannot be written, or the network is none that the layout has names for.
        """
        variables, inference = jax.device_get(self.variables), self.config.inference
        network = Network(self.config.model, self.info, variables, license_id=license_id, inference=inference)
        return write_network(pathlib.Path(path), network, layout=layout)

    @functools.cached_property
    def _features(self) -> Callable[[Variables, Array | np.ndarray], Features]:
        return jax.jit(functools.partial(self.module.apply, method=_backbone_features))

    def _run(self, method: Callable[[CompiledNetwork, list[np.ndarray]], list[Any]], image: Any, options: Any) -> Any:
        """A method of the program of these options; one that was asked for before is still there."""
        is_list = isinstance(image, (list, tuple))
        images = [read_image(each, self.info) for each in (image if is_list else [image])]
        key = repr(sorted(options.items()))
        if key not in self._programs:
            config = with_options(self.config, options)
            self._programs[key] = CompiledNetwork(self.module.apply, self.variables, config, self.info)
        results = method(self._programs[key], images)
        return results if is_list else results[0]


def load(
    source: str | os.PathLike[str], *, layout: str = "", part: str = "", strict: bool = False, **options: Any
) -> Model:
    """A trained network: of a workdir, of anyone's file of weights, or of what `Model.save` wrote.

    What was taken from a file, left out, and assumed because it does not say (output stride, normalisation, names of
    classes) is said by `warnings.warn`, in one line.

    Args:
      source: the path; one of `list_pretrained()`, which is fetched once; or 'hf://owner/name', with huggingface_hub.
      layout: whose names a file uses, a module of deeplab_jax/weights/layouts; '' recognises it.
      part: the network in a file with several ('model_ema'); '': the only one, or that of the usual key.
      strict: whether a file that holds anything else, or an auxiliary head that does not fit, is refused.
      **options: `output_stride`, `atrous_rates` (at that stride), `normalization`, `align_corners` and `ported` (timm's
        'tf_...') of the source, where the file does not say; and those of `config.inference` (scales, flip, window,
        crf, ...), for all calls.

    Raises:
      UserError: where there is no such file, or it cannot be read.
      ValueError: for an option that does not exist or cannot work.

    Example:
      >>> import tempfile
      >>> import deeplab_jax as dl
      >>> small = {"aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4}
      >>> model = dl.create("v3plus", backbone="mobilenet_v2", num_classes=3, head_args=small)
      >>> (path,) = model.save(tempfile.mkdtemp() + "/mine.safetensors")
      >>> dl.load(path, flip=True).config.inference.flip
      True
    """
    network_options = {name: options.pop(name) for name in _OF_THE_SOURCE if name in options}
    found = read_network(str(source), layout=layout, part=part, strict=strict, chosen=_chosen(network_options))
    folder = pathlib.Path(source).expanduser()
    is_workdir = (folder / FOLDER).is_dir()
    config = (read_config(folder) if is_workdir else None) or Config(inference=dataclasses.replace(found.inference))
    config.model = found.config
    config, threshold = with_kept_threshold(with_options(config, options), folder)
    notes = (*found.notes, *([threshold] if threshold else ()))
    if notes:
        notes += tuple(say_own_size(config.inference)) if found.notes else ()
        warnings.warn(f"{source}: {'; '.join(notes)}", stacklevel=2)
    return Model(network.build(config, found.info), jax.device_put(found.variables), config, found.info)


def create(
    name: str,
    *,
    backbone: str,
    num_classes: int,
    output_stride: int = 16,
    channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    layout: str = "",
    class_names: Sequence[str] = (),
    head_args: Mapping[str, Any] | None = None,
    backbone_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Model:
    """A new network, with random weights or with those of a file as far as they fit.

    Args:
      name: of the head, one of `list_models()` ('v3plus', 'v3', 'fcn8s', ...), or 'module.factory'.
      backbone: one of `list_backbones()` ('resnet50', ...), or 'module.factory'.
      num_classes: at least 2, or 1 with task='multilabel'.
      output_stride: of the backbone's last features.
      channels: of the images. Other numbers than 3 are taken as bytes and brought to [-1, 1].
      weights: None: random ones. A file of weights: backbone, and head where it is the same, follow its conventions;
        what fits is taken, the rest stays random, and a warning says what did.
      layout: of that file; '' recognises it.
      class_names: one for each class; (): 'class0', 'class1', ...
      head_args, backbone_args: further arguments of the two.
      seed: of the random weights.
      **settings: further fields of `config.model` (task, align_corners, normalization, compute_dtype, ...); a network
        with task='binary' has one logit, that of the second class.

    Raises:
      ValueError: for a name that does not exist, with the near ones, and for settings that cannot work together.
      UserError: where the file of weights cannot be read, or is of another network.

    Example:
      >>> import deeplab_jax as dl
      >>> net = dl.create("v3", backbone="mobilenet_v2", num_classes=2, head_args={"aspp_channels": 8})
      >>> net.classes
      ('class0', 'class1')
      >>> dl.create("v3", backbone="mobilenet_v22", num_classes=2)
      Traceback (most recent call last):
      ...
      ValueError: no 'mobilenet_v22' in deeplab_jax/backbones/; did you mean 'mobilenet_v2' ...
    """
    settings |= {"num_classes": num_classes, "output_stride": output_stride}
    if channels != 3:
        settings.setdefault("normalization", DATASET_NORMALIZATION)
    if num_classes == 1 and settings.get("task") in (None, "", "binary"):
        raise ValueError("num_classes=1: an object and its background are two: num_classes=2, task='binary'")
    model = describe_network(name, backbone, head_args or {}, backbone_args or {}, settings)
    if weights is not None:
        follow_file(model, PretrainedConfig(str(weights), layout, "fitting", "repeat"), settings)
    config = Config(seed=seed, model=model)
    info = new_info(num_classes, tuple(class_names), channels, model.task or "multiclass")
    with value_errors():
        validate(config)
        module = network.build(config, info)
    variables = create_variables(network.make_init(config, module), seed=seed, mesh=make_mesh(1))
    if weights is not None:
        loaded, report, folded = pretrained_variables(model, variables, module)
        warnings.warn(f"{weights}: {report}", stacklevel=2)
        if folded:
            warnings.warn(f"{weights}: has no statistics of batch norm: estimate them before training", stacklevel=2)
        variables, model.pretrained = jax.device_put(loaded), PretrainedConfig()
    return Model(module, variables, config, info)


def _chosen(options: Mapping[str, Any]) -> SourceSettings:
    """What the caller says of the source's network.

    Raises:
      ValueError: for a value that no network has.
    """
    chosen = SourceSettings(**options)
    if chosen.output_stride not in (0, 8, 16, 32):
        raise ValueError(f"output_stride={chosen.output_stride!r}: must be 8, 16 or 32")
    if not all(type(rate) is int and rate > 0 for rate in chosen.atrous_rates):
        raise ValueError(f"atrous_rates={chosen.atrous_rates!r}: must be whole numbers above 0")
    if isinstance(chosen.normalization, str) and chosen.normalization not in ("", *NORMALIZATIONS):
        raise ValueError(f"normalization={chosen.normalization!r}: must be {', '.join(NORMALIZATIONS)}")
    return dataclasses.replace(chosen, atrous_rates=tuple(chosen.atrous_rates))


def _backbone_features(module: DeepLab, images: Array) -> Features:
    return module.backbone(module.normalize(images), train=False)
