"""Sends what a model tracks to the loggers, and ends a run whose losses are no longer numbers."""

import math
import time
from typing import Any

from pytorch_lightning import Callback, Trainer

from genbench.errors import Diverged
from genbench.heartbeat import Heartbeat
from genbench.interfaces import GenerativeModel
from genbench.loggers import rewind


class Telemetry(Callback):
    """Every `every_images` images: means since the last time, on the axis of images shown.

    Raises Diverged when a tracked value is not finite. The values leave the device here alone.
    """

    def __init__(self, every_images: int, total_images: int, heartbeat: Heartbeat | None) -> None:
        self.every_images, self.total_images = every_images, total_images
        self.heartbeat = heartbeat
        self._speed: float | None = None
        self.next_images = 0
        self.seconds = 0.0  # spent training, pieces of a resumed run together
        self._last: tuple[float, int] | None = None  # time and images of the last flush

    def on_train_start(self, trainer: Trainer, pl_module: GenerativeModel) -> None:  # type: ignore[override]
        """Start the clock."""
        self._last = time.monotonic(), pl_module.images_shown
        self._set_next(pl_module.images_shown)
        rewind(trainer.loggers, pl_module.images_shown)

    def _set_next(self, images: int) -> None:
        """Keep to multiples, so that a resumed run logs where the undisturbed one does."""
        self.next_images = (images // self.every_images + 1) * self.every_images

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: GenerativeModel,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Flush when due."""
        if self.heartbeat:
            self.heartbeat.progress(pl_module.images_shown, self.total_images, self._speed)
        if pl_module.images_shown >= self.next_images:
            self.flush(trainer, pl_module)
            self._set_next(pl_module.images_shown)

    def on_train_end(self, trainer: Trainer, pl_module: GenerativeModel) -> None:  # type: ignore[override]
        """Flush what is left, and stop the clock."""
        self.flush(trainer, pl_module)
        self._last = None

    def flush(self, trainer: Trainer, model: GenerativeModel) -> None:
        """Log the means of everything tracked since the last flush."""
        means = model.means()
        assert self._last is not None
        now, images = time.monotonic(), model.images_shown
        seconds, shown = now - self._last[0], images - self._last[1]
        self._last = now, images
        self.seconds += seconds
        if not means or shown <= 0:
            return
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise Diverged(
                f"{broken[0]} is no longer a number after {images:,} images: lower the learning "
                "rate, or strengthen the penalty on the discriminator"
            )
        if self.heartbeat:
            self._speed = shown / seconds
            row = means | model.learning_rates() | {"images_per_second": shown / seconds}
            for logger in trainer.loggers:
                logger.log_metrics(row, step=images)

    @property
    def seconds_so_far(self) -> float:
        """Seconds spent training until this moment."""
        return self.seconds + (time.monotonic() - self._last[0] if self._last else 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Seconds spent so far."""
        return {"seconds": self.seconds_so_far}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds = state_dict["seconds"]
