"""The complete state of a run, written so that a kill at any moment leaves a whole file behind."""

import os
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from genbench.interfaces import GenerativeModel


class Checkpoints(Callback):
    """`last.ckpt` every `minutes`, `final.ckpt` at the end; written aside, then renamed."""

    def __init__(self, directory: Path, minutes: float) -> None:
        self.directory, self.seconds = directory, 60 * minutes
        self._due = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: GenerativeModel) -> None:  # type: ignore[override]
        """Start the clock; a write that was cut off leaves nothing behind."""
        self._due = time.monotonic() + self.seconds
        if trainer.is_global_zero:
            for partial in self.directory.glob("*.partial"):
                partial.unlink()

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: GenerativeModel,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when due; the first rank's clock decides for all."""
        if trainer.strategy.broadcast(time.monotonic() >= self._due):
            self.save(trainer)
            self._due = time.monotonic() + self.seconds

    def on_train_end(self, trainer: Trainer, pl_module: GenerativeModel) -> None:  # type: ignore[override]
        """Keep the final weights."""
        self.save(trainer, "final.ckpt")

    def save(self, trainer: Trainer, name: str = "last.ckpt") -> Path:
        """Write the state of every rank's trainer to `name`."""
        path = self.directory / name
        partial = path.with_suffix(".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        return path
