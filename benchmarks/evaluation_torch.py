"""PyTorch's side of benchmarks/evaluate_folder.py: a typical evaluation script."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.networks_torch import load_factory, open_device
from benchmarks.pairs import peak_bytes, reset_peak, turn_seconds

IGNORE_LABEL = 255


class Samples(torch.utils.data.Dataset):
    """Images [3, h, w] and labels [h, w] of one size, as bytes."""

    def __init__(self, files: Sequence[tuple[str, str]], size: tuple[int, int], pad_pixel: Sequence[int]) -> None:
        """From (image, mask) files; padded at the bottom and right to `size`."""
        self._files, self._size, self._pad_pixel = files, size, pad_pixel

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One sample."""
        image_path, mask_path = self._files[index]
        image, label = np.array(Image.open(image_path).convert("RGB")), np.array(Image.open(mask_path))
        height, width = label.shape
        padded, labels = np.empty((*self._size, 3), np.uint8), np.full(self._size, IGNORE_LABEL, np.uint8)
        padded[:] = self._pad_pixel
        padded[:height, :width], labels[:height, :width] = image, label
        return torch.from_numpy(padded).permute(2, 0, 1), torch.from_numpy(labels)


class Evaluation:
    """A network, a folder, and passes over it."""

    def __init__(
        self,
        factory: str,
        arguments: dict[str, Any],
        normalization: tuple[Sequence[float], Sequence[float]],
        files: Sequence[tuple[str, str]],
        **options: Any,
    ) -> None:
        """Random weights; workers start with the first pass.

        Args:
          factory: 'module:name' of the function that makes the network, called with `arguments`.
          normalization: mean and standard deviation of RGB in [0, 1].
          files: (image, mask) of each sample.
          **options: 'num_classes', 'size', 'pad_pixel', 'batch_size', 'num_workers', 'device', 'dtype'.
        """
        self._device = open_device(options["device"])
        torch.manual_seed(0)
        module = load_factory(factory)(**arguments).eval()
        self._module = module.to(self._device, memory_format=torch.channels_last)
        self._mean, self._std = (
            torch.tensor(values, device=self._device)[None, :, None, None] * 255 for values in normalization
        )
        self._is_bfloat16 = options["dtype"] == "bfloat16"
        self._num_classes = options["num_classes"]
        self._loader = torch.utils.data.DataLoader(
            Samples(files, options["size"], options["pad_pixel"]),
            batch_size=options["batch_size"],
            num_workers=options["num_workers"],
            persistent_workers=options["num_workers"] > 0,
            pin_memory=self._device.type == "cuda",
        )

    def save_weights(self, path: str) -> None:
        """Writes the state dict as .npz."""
        np.savez(path, **{name: tensor.cpu().numpy() for name, tensor in self._module.state_dict().items()})

    def confusion(self) -> np.ndarray:
        """The confusion matrix of one pass; rows are the truth."""
        counts = torch.zeros(self._num_classes**2, dtype=torch.int64, device=self._device)
        autocast = torch.autocast(self._device.type, torch.bfloat16) if self._is_bfloat16 else contextlib.nullcontext()
        with torch.inference_mode(), autocast:
            for images, labels in self._loader:
                images = images.to(self._device, non_blocking=True, memory_format=torch.channels_last)
                labels = labels.to(self._device, non_blocking=True).long()
                scores = self._module((images.float() - self._mean) / self._std)
                scores = scores["out"] if isinstance(scores, dict) else scores
                is_known = labels != IGNORE_LABEL
                cells = labels[is_known] * self._num_classes + scores.argmax(1)[is_known]
                counts += torch.bincount(cells, minlength=len(counts))
        return counts.reshape(self._num_classes, -1).cpu().numpy()

    def mean_iou(self) -> float:
        """Mean IoU of one pass, over the classes that occur."""
        confusion = self.confusion()
        hits = np.diagonal(confusion)
        union = confusion.sum(0) + confusion.sum(1) - hits
        return float((hits[union > 0] / union[union > 0]).mean())

    def turn(self) -> float:
        """Seconds of one pass."""
        return turn_seconds(self.mean_iou)

    def reset_memory(self) -> None:
        """Resets the peak."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        reset_peak()

    def memory(self) -> int:
        """Peak bytes of this process, without its workers, or of the GPU if there is one."""
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else peak_bytes()
