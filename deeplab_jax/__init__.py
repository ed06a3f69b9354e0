"""deeplab_jax: the DeepLab family for semantic segmentation in JAX and Flax.

    import deeplab_jax as dl

    model = dl.load("runs/quickstart")     # or anyone's weights file
    mask = model.segment("photo.jpg")      # class ids, [h, w]

Nothing is imported before it is asked for: importing this package loads no JAX and touches no device.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from deeplab_jax import registry

__version__ = "0.1.0"

if TYPE_CHECKING:
    from deeplab_jax import losses as losses
    from deeplab_jax import metrics as metrics
    from deeplab_jax import ops as ops
    from deeplab_jax.apps.library import evaluate as evaluate
    from deeplab_jax.apps.library import export as export
    from deeplab_jax.apps.library import train as train
    from deeplab_jax.apps.listing import list_backbones as list_backbones
    from deeplab_jax.apps.listing import list_configs as list_configs
    from deeplab_jax.apps.listing import list_datasets as list_datasets
    from deeplab_jax.apps.listing import list_heads as list_heads
    from deeplab_jax.apps.listing import list_layouts as list_layouts
    from deeplab_jax.apps.listing import list_losses as list_losses
    from deeplab_jax.apps.listing import list_models as list_models
    from deeplab_jax.apps.listing import list_pretrained as list_pretrained
    from deeplab_jax.config import Config as Config
    from deeplab_jax.model import Model as Model
    from deeplab_jax.model import create as create
    from deeplab_jax.model import load as load
    from deeplab_jax.types import UserError as UserError
else:
    _LISTS = ("backbones", "configs", "datasets", "heads", "layouts", "losses", "models", "pretrained")
    _NAMES = {
        "": ("export", "losses", "metrics", "ops", "train"),
        "apps.library": ("evaluate",),
        "apps.listing": tuple(f"list_{kind}" for kind in _LISTS),
        "config": ("Config",),
        "model": ("Model", "create", "load"),
        "types": ("UserError",),
    }
    __getattr__, __dir__ = registry.lazy_names(__name__, _NAMES)

    class _Callable(ModuleType):
        """A package that is a function too: `deeplab_jax.train` has modules, and called it trains."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            library = importlib.import_module(f"{__package__}.apps.library")
            return getattr(library, self.__name__.rpartition(".")[2])(*args, **kwargs)

    for _package in ("train", "export"):
        importlib.import_module(f"{__name__}.{_package}").__class__ = _Callable
