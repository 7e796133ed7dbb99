"""The model of a run in this process: drawn from, encoded with. Imports torch."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.device import device_of_run, memory_for
from genbench.errors import Notice, UserMistake
from genbench.library.pictures import Pictures, to_images, to_pictures
from genbench.models.batch_statistics import recalibrated
from genbench.models.condition import asked
from genbench.models.contract import Encodes, GenerativeModel, HasPosterior, Reconstructs
from genbench.models.drawing import draw_interpolations, draw_samples, evaluating
from genbench.models.reconstruction import reconstructing
from genbench.training import loading

AT_ONCE = 256  # images that are encoded together


class Weights:
    """A run's model with the weights of a checkpoint, on a device, and what converts its images.

    The dataset is not read, except for known answers that are made of it. UserMistake without the
    checkpoint, for weights `ema` that were not kept, and for code that may not be run (`runs.trust`).
    """

    def __init__(
        self,
        directory: Path,
        checkpoint: str = "final",
        weights: str = "raw",
        device: str | None = None,
    ) -> None:
        if weights not in ("raw", "ema"):
            raise UserMistake(f"weights={weights!r}: choose raw or ema")
        self.model: GenerativeModel
        self.data: ImageData
        self.model, self.data, config = loading.load_model(directory, checkpoint)
        self.name = str(config["choices"]["model"])
        if weights == "ema" and loading.load_average(directory, self.model, checkpoint) is None:
            raise UserMistake(
                f"{directory.name} kept no average of its weights: train with ema=standard, or take "
                "weights='raw'"
            )
        with warnings.catch_warnings():  # where it was trained is no news in a notebook
            warnings.simplefilter("ignore", Notice)
            self.model.to(device_of_run(config["trainer"]["accelerator"], device))

    def sample(
        self, num: int, seed: int, label: str | int | Mapping[str, int] | None = None
    ) -> Pictures:
        """Draw `num` images from latents that depend on `seed` alone, of a `label` if one is given."""
        wanted = str(label) if isinstance(label, int) else label
        labels = asked(self.model.condition, wanted, num, seed)
        with _drawing(num), recalibrated(self.model):
            return to_pictures(draw_samples(self.model, num, seed, labels), self.data)

    def interpolate(self, rows: int, columns: int, seed: int) -> Pictures:
        """Draw rows of images between two latents each."""
        with _drawing(rows * columns), recalibrated(self.model):
            return to_pictures(draw_interpolations(self.model, rows, columns, seed), self.data)

    def encode(self, pictures: Any) -> NDArray[np.float32]:
        """Codes (N, latent_dim), posterior means where there is a posterior, of uint8 pictures (N, H, W, C)."""
        model = self.model
        self._refuse_labels("encode")
        if not isinstance(model, HasPosterior | Encodes):
            raise UserMistake(self._no_encoder("encode"))
        images = to_images(pictures, self.data)
        with _drawing(len(images)), evaluating(self.model):
            means = [
                _code(model, part.to(self.model.device)).cpu()
                for part in torch.split(images, AT_ONCE)
            ]
        return torch.cat(means).float().numpy()

    def reconstruct(self, pictures: Any) -> Pictures:
        """Reconstructions of uint8 pictures (N, H, W, C); with BatchNorm the training images are read."""
        model = self.model
        self._refuse_labels("reconstruct")
        if not isinstance(model, Reconstructs):
            raise UserMistake(self._no_encoder("reconstruct"))
        images = to_images(pictures, self.data)
        with _drawing(len(images)), reconstructing(self.model, self.data), evaluating(self.model):
            rebuilt = [
                model.reconstruct(part.to(self.model.device)).cpu()
                for part in torch.split(images, AT_ONCE)
            ]
        return to_pictures(torch.cat(rebuilt), self.data)

    def _refuse_labels(self, what: str) -> None:
        if self.model.condition is not None:
            raise UserMistake(
                f"{self.name} was trained with labels, and pictures of your own have none: {what} by run.model, "
                "which takes them"
            )

    def _no_encoder(self, what: str) -> str:
        return f"{self.name} has no encoder, so it cannot {what}: choose a vae or a vae-gan run"


@contextmanager
def _drawing(num: int) -> Iterator[None]:
    if num < 1:
        raise UserMistake(f"{num} images: give 1 or more")
    with memory_for(f"drawing {num} images", f"try {max(1, num // 2)}"):
        yield


def _code(model: HasPosterior | Encodes, images: Tensor) -> Tensor:
    return model.encode(images) if isinstance(model, Encodes) else model.posterior(images)[0]
