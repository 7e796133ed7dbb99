"""Between two batches: checkpoints that are due, stops by a signal, the end of `budget.seconds`."""

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

    def on_start(self, run: Training) -> None:
        """Replace Lightning's signal handlers, which write no checkpoint."""
        agree("precisions: trainer.precision", run.trainer.precision)
        if self.seconds is not None:
            self._end = time.monotonic() + self.seconds - self.telemetry.seconds
        for number in STOPS:
            self._before[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = stop_name(number)

    def after_batch(self, run: Training, since: int) -> None:
        """Save or stop if it is time; all DDP ranks together."""
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
        """Restore the signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def agreed(trainer: Trainer, *questions: bool) -> Sequence[bool]:
    """Answers that all DDP ranks share: yes if one rank says yes; one collective for all questions."""
    if trainer.world_size == 1:
        return questions
    votes = torch.tensor(questions, dtype=torch.int32, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(votes)
    return [vote > 0 for vote in votes.tolist()]
