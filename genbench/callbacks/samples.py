"""Pictures of a run over training: samples from fixed latents, reconstructions, interpolations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from genbench.callbacks.alarms import Alarms
from genbench.interfaces import GenerativeModel, ImageData, Reconstructs
from genbench.loggers import log_images
from genbench.pictures import save_grid

SEED = 2_718  # of the fixed latents: the same ones for every run, so that grids can be compared


@contextmanager
def evaluating(model: GenerativeModel) -> Iterator[None]:
    """Put the model in eval mode without gradients, and back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def draw_samples(model: GenerativeModel, num: int, seed: int = SEED) -> Tensor:
    """Draw images (num, C, H, W) from latents that depend on `seed` alone."""
    z = model.latents(num, torch.Generator().manual_seed(seed))
    with evaluating(model):
        return torch.cat([model.sample(part.to(model.device)) for part in torch.split(z, 256)])


def draw_interpolations(model: GenerativeModel, rows: int, columns: int, seed: int) -> Tensor:
    """Draw rows of images between two latents each, on the great circle between them (slerp)."""
    ends = model.latents(2 * rows, torch.Generator().manual_seed(seed))
    first, last = ends.flatten(1).chunk(2)
    cosine = torch.nn.functional.cosine_similarity(first, last)
    angle = cosine.clamp(-0.9999, 0.9999).acos()[:, None, None]
    t = torch.linspace(0, 1, columns)[None, :, None]
    z = (((1 - t) * angle).sin() * first[:, None] + (t * angle).sin() * last[:, None]) / angle.sin()
    with evaluating(model):
        return torch.cat(
            [model.sample(row.view(columns, *ends.shape[1:]).to(model.device)) for row in z]
        )


def draw_reconstructions(model: GenerativeModel, data: ImageData, num: int) -> Tensor | None:
    """Draw rows of 8 validation images, each above its reconstruction; None without an encoder."""
    if not isinstance(model, Reconstructs):
        return None
    pixels = torch.as_tensor(data.pixels("validation")[:num].copy())
    images = data.to_images(pixels).to(model.device)
    with evaluating(model):
        pairs = [torch.split(images, 8), torch.split(model.reconstruct(images), 8)]
    return torch.cat([row for both in zip(*pairs, strict=True) for row in both])


class Samples(Callback):
    """`count` grids over training, the last one of the final weights."""

    def __init__(
        self, directory: Path, data: ImageData, count: int, total_images: int, alarms: Alarms
    ) -> None:
        self.alarms = alarms
        self.directory, self.data, self.count = directory, data, count
        self.total_images, self.num = total_images, 64

    def _is_due(self, before: int, now: int) -> bool:
        if not self.count:
            return False
        step = max(1, self.total_images // self.count)
        return now // step > before // step and now < self.total_images

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: GenerativeModel, batch: Any, batch_idx: int
    ) -> None:
        """Remember where the batch began."""
        self._before = pl_module.images_shown

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: GenerativeModel,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Draw when due."""
        if trainer.is_global_zero and self._is_due(self._before, pl_module.images_shown):
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: GenerativeModel) -> None:  # type: ignore[override]
        """Draw the final weights."""
        if trainer.is_global_zero:
            self.draw(trainer, pl_module)

    def draw(self, trainer: Trainer, model: GenerativeModel) -> None:
        """Write the grids of the present weights and hand them to the loggers."""
        images = model.images_shown
        sheets = {
            "samples": draw_samples(model, self.num),
            "interpolations": draw_interpolations(model, rows=4, columns=8, seed=SEED),
        }
        if model.players():  # a known answer needs no advice
            self.alarms.look_at_samples(sheets["samples"], images)
        reconstructions = draw_reconstructions(model, self.data, self.num // 2)
        if reconstructions is not None:
            sheets["reconstructions"] = reconstructions
        for key, sheet in sheets.items():
            path = self.directory / f"{key}-{images:09d}.png"
            save_grid(self.data.to_pixels(sheet), self.data.levels, path)
            log_images(trainer.loggers, key, path, images)
