"""Between two batches: checkpoints that are due, stops by a signal, the end of `budget.seconds`."""

import signal
import time
from typing import Any

from genbench.errors import Interrupted
from genbench.runs.stops import STOPS, stop_name
from genbench.training.callbacks.checkpoints import Checkpoints
from genbench.training.callbacks.contract import RunCallback
from genbench.training.callbacks.telemetry import Telemetry
from genbench.training.exchange import Votes
from genbench.training.module import Training
from genbench.training.ranks import agree


class Stopping(RunCallback):
    """On a signal of `STOPS`: checkpoint, then Interrupted. After `seconds`: end as if the budget were used up."""

    def __init__(
        self, checkpoints: Checkpoints, telemetry: Telemetry, seconds: float | None
    ) -> None:
        self.checkpoints, self.telemetry, self.seconds = checkpoints, telemetry, seconds
        self.asked: str | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._end = float("inf")
        self._votes: Votes | None = None  # of several ranks

    def on_start(self, run: Training) -> None:
        """Replace Lightning's signal handlers, which write no checkpoint."""
        agree("precisions: trainer.precision", run.trainer.precision)
        self._votes = Votes(run.device) if run.trainer.world_size > 1 else None
        if self.seconds is not None:
            self._end = time.monotonic() + self.seconds - self.telemetry.seconds
        for number in STOPS:
            self._before[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = stop_name(number)

    def after_batch(self, run: Training, since: int) -> None:
        """Save or stop if it is time; all ranks together, a batch after one has said so."""
        own = (
            self.checkpoints.is_due,
            self.asked is not None,
            time.monotonic() >= self._end,
        )
        due, asked, over = own if self._votes is None else self._votes.ask(*own)
        if due or asked:
            self.checkpoints.save(run.trainer)
        if asked:
            raise Interrupted(
                f"stopped by {self.asked or 'a signal to another rank'} after "
                f"{run.images_shown:,} images; `genbench resume` goes on from there"
            )
        if over:
            run.trainer.should_stop = True

    def close(self) -> None:
        """Restore the signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
