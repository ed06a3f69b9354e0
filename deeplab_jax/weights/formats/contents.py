"""What a weights file holds: arrays by name, where in the file they were, and the settings stored beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """A file's arrays, and what else it says.

    Attributes:
      arrays: by their names in the file.
      taken: dotted keys under which they were found ('state_dict'); '': the file holds nothing else.
      others: further keys that hold arrays of a network ('model_ema').
      settings: plain values that the file or a config beside it states: {'encoder_output_stride': 8, ...}.
      origin: of these settings: 'hyper_parameters', 'config.json'; '': there are none.
    """

    arrays: Mapping[str, np.ndarray]
    taken: str = ""
    others: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    origin: str = ""
