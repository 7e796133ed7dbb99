"""What a dataset must offer: square images of one size in three declared splits.

Images are float tensors (N, C, H, W) with values in [-1, 1] wherever a model sees them. On disk, on
the way to the device and in metrics they are uint8 level indices 0 .. levels - 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.data.attributes import Attributes
from genbench.data.factors import Factors
from genbench.errors import UserMistake

Split = Literal["train", "validation", "test"]


class ImageData(ABC):
    """Square images of one size in three declared splits, as level indices."""

    name: str
    image_size: int
    channels: int
    levels: int  # 256 for 8-bit images, 17 for digits
    flip: bool = False  # training mirrors half of the images; `pixels` never does

    def prepare_data(self) -> None:  # noqa: B027
        """Fetch and decode what is missing; raises UserMistake for what cannot be had."""

    @abstractmethod
    def pixels(self, split: Split) -> NDArray[np.uint8]:
        """All images of a split: (N, C, H, W) uint8 level indices, memory-mapped where large."""

    @abstractmethod
    def card(self, split: Split) -> dict[str, Any]:
        """What defines the split: dataset, split, number, transform, fingerprint of the pixels."""

    def labels(self, split: Split) -> NDArray[np.int64] | None:
        """Classes of the images of a split, (N,) int64 into `class_names`, by index; None where none are known."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; none where none are known."""
        return ()

    def attributes(self, split: Split) -> Attributes | None:
        """Attributes of the images of a split, by index; None where none are known."""
        return None

    def factors(self, split: Split) -> Factors | None:
        """What is known of the images of a split, by index: named labels; None where nothing is.

        A world that is drawn has several factors; classes are one, called `class`.
        """
        return None

    @abstractmethod
    def plan(
        self,
        *,
        seed: int,
        batch_size: int,
        pieces: int,
        steps: int,
        steps_per_batch: int,
        stops: Sequence[int] = (),
    ) -> None:
        """Fix the training order before `train_dataloader`: `steps` steps of `pieces` batches.

        `batch_size` counts the images of one piece over all ranks; the order depends on `seed`
        alone. The loader hands out `steps_per_batch` steps at a time, and stops short where the
        images (steps x batch) reach a multiple of one of `stops`.
        """

    def train_dataloader(
        self, rank: int = 0, ranks: int = 1, device: torch.device | None = None
    ) -> Iterable[Any]:
        """What is left of the plan, as batches for one DDP rank that trains on `device`.

        The loader is stateful (`state_dict`, `load_state_dict`), so that a run can be resumed. Data
        that is only scored has none.
        """
        raise NotImplementedError(f"{type(self).__name__} can be scored, not trained on")

    def training_images(self, batch: Any) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of a batch that has arrived on the device."""
        return self.to_images(batch)

    def hand_out(self, labels: Tensor) -> None:
        """From now on batches bring these labels of the training images along, by index.

        A dataset that can be trained on with labels overrides this and `training_labels`.
        """
        raise UserMistake(
            f"{type(self).__name__} gives no labels with its training images: choose arena.condition=none, or "
            "override hand_out and training_labels"
        )

    def training_labels(self, batch: Any) -> Tensor:
        """Labels of a batch that has arrived on the device, after `hand_out`."""
        raise NotImplementedError(f"{type(self).__name__} gives no labels")

    def to_images(self, pixels: Tensor) -> Tensor:
        """Level indices to float images in [-1, 1]."""
        return pixels.float() * (2 / (self.levels - 1)) - 1

    def to_pixels(self, images: Tensor) -> Tensor:
        """Clamp to [-1, 1] and round to the nearest level: uint8."""
        scale = (self.levels - 1) / 2
        return ((images.float().clamp(-1, 1) + 1) * scale).round().to(torch.uint8)
