"""TensorBoard event files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger

from genbench.runs.score import Score
from genbench.training.loggers.sink import Board, never_raises


class TensorBoard(Board):
    """Event files in the run directory's `tensorboard` folder."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.broken = False
        self._images = 0
        self._logger = TensorBoardLogger(directory, name="", version="tensorboard")

    @never_raises
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log at `step` images."""
        self._images = step or self._images
        self._logger.log_metrics(dict(metrics), step)

    @never_raises
    def log_picture(self, key: str, path: Path, images: int) -> None:
        """Log a PNG."""
        import numpy as np
        from PIL import Image

        picture = np.asarray(Image.open(path).convert("RGB"))
        self._logger.experiment.add_image(key, picture, images, dataformats="HWC")

    @never_raises
    def log_final(self, scores: Sequence[Score]) -> None:
        """Log the scores as scalars `final/<name>`."""
        known = {f"{s.checkpoint}/{s.name}": s.value for s in scores if s.value is not None}
        self._logger.log_metrics(known, self._images)

    @never_raises
    def finalize(self, status: str) -> None:
        """Flush; close after the last word."""
        self._logger.experiment.flush()
        if status != "success":  # Lightning's word after the fit
            self._logger.experiment.close()
