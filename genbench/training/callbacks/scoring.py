"""Scores at points of the budget, for curves: `trainer.score_every`. They choose no checkpoint."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from genbench.errors import UserMistake
from genbench.models.contract import GenerativeModel
from genbench.ranges import whole
from genbench.runs.budget import parse_images
from genbench.runs.history import VALIDATION
from genbench.training.callbacks.contract import RunCallback, passes
from genbench.training.callbacks.telemetry import Telemetry
from genbench.training.module import Training

POINTS = 10  # of trainer.score_every=auto
Measure = Callable[[GenerativeModel], Mapping[str, float]]


def points_every(
    score_every: int | str | None, total_images: int, measure: Measure | None
) -> int | None:
    """Images between two points, of the setting `trainer.score_every`; None for no curves.

    Raises UserMistake for what is no number of images, and where there is nothing to `measure`.
    """
    if score_every is None:
        return None
    if measure is None:
        raise UserMistake(
            f"trainer.score_every={score_every} scores samples in the features that evaluation=none goes "
            "without: choose trainer.score_every=null, or another evaluation"
        )
    if score_every == "auto":
        return max(1, total_images // POINTS)
    every = parse_images(score_every, "trainer.score_every")
    whole("trainer.score_every", every)
    return every


class Scoring(RunCallback):
    """Every `every_images`, and at the end: log `measure(model)` as `validation/<quantity>`.

    Its seconds are its own: `telemetry` leaves them out of those of the training.
    """

    def __init__(self, measure: Measure | None, every_images: int, telemetry: Telemetry) -> None:
        assert measure is not None, "points_every refuses this"
        self.measure, self.every_images, self.telemetry = measure, every_images, telemetry
        self.seconds = 0.0  # over all pieces of a resumed run
        self._last = 0  # images at the last point

    def after_batch(self, run: Training, since: int) -> None:
        """Score when due."""
        if passes(self.every_images, since, run.images_shown):
            self.score(run)

    def before_end(self, run: Training) -> None:
        """Score the final weights, so that a curve reaches the budget."""
        if self._last != run.images_shown:
            self.score(run)

    def score(self, run: Training) -> None:
        """Score the present weights on the first rank; the others wait in their next step."""
        self._last = run.images_shown
        if not run.trainer.is_global_zero:
            return
        began = time.perf_counter()
        found = self.measure(run.model)
        seconds = time.perf_counter() - began
        self.seconds += seconds
        self.telemetry.leave_out(seconds)
        row = {f"{VALIDATION}{quantity}": value for quantity, value in found.items()}
        for logger in run.trainer.loggers:
            logger.log_metrics(row, step=run.images_shown)

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far, and where the last point is."""
        return {"seconds": self.seconds, "last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.seconds, self._last = state_dict["seconds"], state_dict["last"]
