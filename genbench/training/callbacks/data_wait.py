"""Measures how long training waits for its data, and warns if that is most of the time."""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from genbench.training.alarms import Alarms
from genbench.training.callbacks.contract import RunCallback
from genbench.training.callbacks.telemetry import Telemetry
from genbench.training.module import Training

STALLED = 60.0  # seconds without a batch before a warning
LOOK = 5.0  # seconds between two checks
SHARE = 0.5  # of the training time that waiting may take
LEAST = 10.0  # seconds of waiting below which there is no warning
REMEDY = (
    "is its disk or network share slow? `genbench data prepare` decodes a dataset once, and "
    "dataset.workers=4 reads one that is too large for that with more processes"
)


class Waiting(RunCallback):
    """Adds up the time between two batches; the last callback, so that none other is counted.

    A GPU works on what has been queued while its host waits: if it has not finished the batch before
    when the next one arrives, as its `event` tells, nothing has waited. A thread checks every `look_every` seconds whether
    the next batch comes at all; `clock` returns seconds.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        alarms: Alarms,
        clock: Callable[[], float] = time.monotonic,
        look_every: float = LOOK,
        event: "torch.cuda.Event | None" = None,
    ) -> None:
        self.telemetry, self.alarms, self.clock = telemetry, alarms, clock
        self.look_every = look_every
        self.seconds = 0.0  # over all pieces of a resumed run
        self._since: float | None = None  # when the current wait began
        self._done = event
        self._over = threading.Event()

    def on_start(self, run: Training) -> None:
        """Start to wait for the first batch."""
        self._since = self.clock()
        self._over.clear()
        threading.Thread(target=self._watch, name="waiting for data", daemon=True).start()

    def before_batch(self, run: Training) -> None:
        """A batch has arrived."""
        if self._since is not None:
            if self._done is None or self._done.query():  # type: ignore[no-untyped-call]
                self.seconds += self.clock() - self._since
            self._since = None

    def after_batch(self, run: Training, since: int) -> None:
        """Wait for the next one."""
        if self._done is not None:
            self._done.record()
        self._since = self.clock()

    def before_end(self, run: Training) -> None:
        """Warn if most of the training was spent waiting; the warning goes into the final record."""
        self._since = None
        total = self.telemetry.seconds_so_far
        if self.seconds >= LEAST and self.seconds > SHARE * total:
            self.alarms.warn(
                "data",
                f"training waited for its data {self.seconds:.0f} of {total:.0f} seconds: {REMEDY}",
            )

    def close(self) -> None:
        """End the thread."""
        self._since = None
        self._over.set()

    def look(self) -> None:
        """Warn if the next batch does not come."""
        since = self._since  # the other thread may end the wait at any moment
        if since is not None and self.clock() - since > STALLED:
            self.alarms.warn("stalled", f"no batch for {STALLED:.0f} seconds: {REMEDY}")

    def _watch(self) -> None:
        while not self._over.wait(self.look_every):
            self.look()

    def state_dict(self) -> dict[str, Any]:
        """Seconds waited so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint's seconds."""
        self.seconds = state_dict["seconds"]
