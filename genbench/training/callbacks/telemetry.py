"""Logs what a model tracks, and ends a run whose steps are all skipped."""

import math
import time
from typing import Any

from genbench.errors import Diverged
from genbench.runs.heartbeat import Heartbeat
from genbench.training.alarms import Alarms
from genbench.training.callbacks.contract import RunCallback, passes
from genbench.training.guards import Skipped
from genbench.training.loggers import rewind, stamp
from genbench.training.module import Training

REMEDY = (
    "Lower its learning rate, clip its gradient (gradient_clip=1.0), strengthen the penalty on the "
    "discriminator, or leave half precision (trainer.precision=32-true)"
)


class Telemetry(RunCallback):
    """Every `every_images` images: means since the last time, on the axis of images (steps x batch).

    Raises Diverged when `max_skipped` steps of a player in a row, or half of all there are, were
    skipped, and when a tracked mean is NaN though no step was skipped. This is the only place where
    tracked values leave the device.
    """

    def __init__(
        self,
        every_images: int,
        total_images: int,
        heartbeat: Heartbeat | None,
        max_skipped: int,
        alarms: Alarms | None = None,
    ) -> None:
        self.every_images, self.total_images = every_images, total_images
        self.heartbeat, self.max_skipped, self.alarms = heartbeat, max_skipped, alarms
        self._skipped = 0  # steps of all players, at the last flush
        self._speed: float | None = None
        self.seconds = 0.0  # spent training, over all pieces of a resumed run
        self._last: tuple[float, int] | None = None  # time and images of the last flush

    def on_start(self, run: Training) -> None:
        """Start the clock."""
        self._last = time.monotonic(), run.images_shown
        self._skipped = sum(skipped.total for skipped in run.skipped().values())
        rewind(run.trainer.loggers, run.images_shown)
        stamp(run.trainer.loggers, lambda: self._spent(run))

    def after_batch(self, run: Training, since: int) -> None:
        """Flush when due."""
        if self.heartbeat:
            self.heartbeat.progress(run.images_shown, self.total_images, self._speed)
        if passes(self.every_images, since, run.images_shown):
            self.flush(run)

    def on_end(self, run: Training) -> None:
        """Flush what is left, and stop the clock."""
        self.flush(run)
        self._last = None

    def flush(self, run: Training) -> None:
        """Log the means of everything tracked since the last flush."""
        means, skipped = run.means(), run.skipped()
        assert self._last is not None
        now, images = time.monotonic(), run.images_shown
        seconds, shown = now - self._last[0], images - self._last[1]
        self._last = now, images
        self.seconds += seconds
        if not means or shown <= 0:
            return
        self._judge(means, skipped, run)
        if self.heartbeat:
            if self.alarms:
                self.alarms.look_at_means(run.model.symptoms(), means, images)
            self._speed = shown / seconds
            row = {name: value for name, value in means.items() if math.isfinite(value)}
            row |= {f"skipped/{name}": float(s.total) for name, s in skipped.items() if s.total}
            row |= run.learning_rates() | {"images_per_second": shown / seconds}
            for logger in run.trainer.loggers:
                logger.log_metrics(row, step=images)

    def _judge(self, means: dict[str, float], skipped: dict[str, Skipped], run: Training) -> None:
        """Raise Diverged if training cannot go on."""
        limit = min(self.max_skipped, max(1, self.total_images // run.pace.batch_size // 2))
        for name, counts in skipped.items():
            if counts.in_a_row >= limit:
                raise Diverged(
                    f"the loss or the gradient of the {name} is NaN or infinite: its last "
                    f"{counts.in_a_row:,} steps were skipped, after {run.images_shown:,} images. "
                    f"{REMEDY}"
                )
        total = sum(counts.total for counts in skipped.values())
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken and total == self._skipped:  # no step was skipped that would explain it
            raise Diverged(
                f"{broken[0]} is NaN or infinite after {run.images_shown:,} images. {REMEDY}"
            )
        self._skipped = total

    def leave_out(self, seconds: float) -> None:
        """Leave out the last `seconds`, which were no training: they are counted elsewhere."""
        if self._last is not None:
            self._last = self._last[0] + seconds, self._last[1]

    @property
    def seconds_so_far(self) -> float:
        """Seconds spent training until this moment."""
        return self.seconds + (time.monotonic() - self._last[0] if self._last else 0.0)

    def _spent(self, run: Training) -> dict[str, float]:
        """What training has cost until this moment; it stands in every row of the history."""
        spent: dict[str, float] = {"seconds": round(self.seconds_so_far, 3)}
        multiply_adds = run.tally.multiply_adds
        return spent if multiply_adds is None else spent | {"multiply_adds": multiply_adds}

    def state_dict(self) -> dict[str, Any]:
        """Seconds spent so far, and the state of the alarms."""
        alarms = {"alarms": self.alarms.state_dict()} if self.alarms else {}
        return {"seconds": self.seconds_so_far} | alarms

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.seconds = state_dict["seconds"]
        if self.alarms and "alarms" in state_dict:  # not in older checkpoints
            self.alarms.load_state_dict(state_dict["alarms"])
