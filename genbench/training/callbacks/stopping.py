"""What the clock or a signal asks for between two batches: a checkpoint, a stop, the end."""

import signal
import time
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Trainer

from genbench.errors import Interrupted
from genbench.runs.stops import STOPS, stop_name
from genbench.training.callbacks.checkpoints import Checkpoints
from genbench.training.callbacks.contract import RunCallback
from genbench.training.callbacks.telemetry import Telemetry
from genbench.training.module import Training


class Stopping(RunCallback):
    """A signal of `STOPS`: checkpoint, then raise Interrupted. `seconds`: stop as if done."""

    def __init__(
        self, checkpoints: Checkpoints, telemetry: Telemetry, seconds: float | None
    ) -> None:
        self.checkpoints, self.telemetry, self.seconds = checkpoints, telemetry, seconds
        self.asked: str | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._end = float("inf")

    def on_start(self, run: Training) -> None:
        """Take the signals over from Lightning, whose own handling forgets the checkpoint."""
        if self.seconds is not None:
            self._end = time.monotonic() + self.seconds - self.telemetry.seconds
        for number in STOPS:
            self._before[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = stop_name(number)

    def after_batch(self, run: Training, since: int) -> None:
        """Save or stop here if it is time; all ranks together."""
        due, asked, over = agreed(
            run.trainer,
            self.checkpoints.is_due,
            self.asked is not None,
            time.monotonic() >= self._end,
        )
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
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def agreed(trainer: Trainer, *questions: bool) -> Sequence[bool]:
    """Answers that hold for all ranks, yes if one says yes; one collective for all questions."""
    if trainer.world_size == 1:
        return questions
    votes = torch.tensor(questions, dtype=torch.int32, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(votes)
    return [vote > 0 for vote in votes.tolist()]
