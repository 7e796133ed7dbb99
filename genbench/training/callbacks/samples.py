"""Pictures of a run over training: samples from fixed latents, reconstructions, interpolations.

With each goes the PSNR of some validation images, for models with an encoder.
"""

from pathlib import Path

from genbench.data.contract import ImageData
from genbench.models.batch_statistics import recalibrated
from genbench.models.drawing import SEED, draw_grid, draw_interpolations, draw_reconstructions
from genbench.models.reconstruction import reconstructing, validation_psnr
from genbench.runs.history import PSNR
from genbench.training.alarms import Alarms
from genbench.training.callbacks.contract import RunCallback, passes
from genbench.training.loggers import log_images
from genbench.training.module import Training
from genbench.training.pictures import save_grid

COMPARED = 256  # validation images whose reconstructions are compared with them


class Samples(RunCallback):
    """`count` grids over training, the last one of the final weights."""

    def __init__(
        self, directory: Path, data: ImageData, count: int, total_images: int, alarms: Alarms
    ) -> None:
        self.alarms = alarms
        self.directory, self.data, self.count = directory, data, count
        self.total_images, self.num = total_images, 64

    def _is_due(self, since: int, now: int) -> bool:
        if not self.count:
            return False
        every = max(1, self.total_images // self.count)
        return passes(every, since, now) and now < self.total_images

    def after_batch(self, run: Training, since: int) -> None:
        """Draw when due."""
        if run.trainer.is_global_zero and self._is_due(since, run.images_shown):
            self.draw(run)

    def on_end(self, run: Training) -> None:
        """Draw the final weights."""
        if run.trainer.is_global_zero:
            self.draw(run)

    def draw(self, run: Training) -> None:
        """Write the grids of the present weights and hand them to the loggers."""
        model, images = run.model, run.images_shown
        with recalibrated(model):
            sheets = {
                "samples": draw_grid(model, self.num),
                "interpolations": draw_interpolations(model, rows=4, columns=8, seed=SEED),
            }
        with reconstructing(model, self.data):
            reconstructions = draw_reconstructions(model, self.data, self.num // 2)
            compared = validation_psnr(model, self.data, COMPARED)
            if model.players():  # a known answer needs no advice
                self.alarms.look_at_samples(sheets["samples"], images)
                self.alarms.look_at_reconstructions(model, images)
        if reconstructions is not None:
            sheets["reconstructions"] = reconstructions
        for key, sheet in sheets.items():
            path = self.directory / f"{key}-{images:09d}.png"
            save_grid(self.data.to_pixels(sheet), self.data.levels, path)
            log_images(run.trainer.loggers, key, path, images)
        if compared is not None:
            for logger in run.trainer.loggers:
                logger.log_metrics({PSNR: compared}, step=images)
