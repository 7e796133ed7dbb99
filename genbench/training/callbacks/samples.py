"""Pictures of a run over training: samples from fixed latents, reconstructions, interpolations."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from genbench.data.contract import ImageData
from genbench.models.contract import GenerativeModel
from genbench.models.drawing import SEED, draw_interpolations, draw_reconstructions, draw_samples
from genbench.training.alarms import Alarms
from genbench.training.loggers import log_images
from genbench.training.pictures import save_grid


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
