"""TensorBoard event files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger

from genbench.runs.priors import score_address
from genbench.runs.score import Score
from genbench.training.loggers.sink import Dashboard, never_raises


class TensorBoard(Dashboard):
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
        known = {score_address(s): s.value for s in scores if s.value is not None}
        self._logger.log_metrics(known, self._images)

    @never_raises
    def finalize(self, status: str) -> None:
        """Flush after the fit, close after the scores."""
        self._logger.experiment.flush()
        super().finalize(status)

    def close(self, status: str) -> None:
        """Close the file."""
        self._logger.experiment.close()
