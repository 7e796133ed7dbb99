"""A progress bar in images: how far, how fast, how long still."""

import sys
import time
from typing import Any

from pytorch_lightning import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genbench.models.contract import GenerativeModel

REFRESH_SECONDS = 0.5


LINES = 10  # printed where there is no terminal


class ProgressBar(Callback):
    """A bar on a terminal, one line for every tenth of the run elsewhere."""

    def __init__(self, total_images: int) -> None:
        self.total_images = total_images
        self.console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._last = (0.0, 0)

    def on_train_start(self, trainer: Trainer, pl_module: GenerativeModel) -> None:  # type: ignore[override]
        """Show the bar."""
        self._last = time.monotonic(), pl_module.images_shown
        if trainer.is_global_zero and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("  training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("images · {task.fields[speed]}"),
                TimeRemainingColumn(),
                console=self.console,
                auto_refresh=False,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "train", total=self.total_images, completed=pl_module.images_shown, speed=""
            )

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: GenerativeModel,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move on, twice a second or every tenth of the run."""
        if not trainer.is_global_zero:
            return
        now, images = time.monotonic(), pl_module.images_shown
        if self._bar is not None:
            if now - self._last[0] >= REFRESH_SECONDS:
                speed = (images - self._last[1]) / (now - self._last[0])
                self._last = now, images
                self._bar.update(self._task, completed=images, speed=f"{speed:,.0f}/s")
                self._bar.refresh()
        elif images * LINES // self.total_images > self._last[1] * LINES // self.total_images:
            speed = (images - self._last[1]) / (now - self._last[0])
            self._last = now, images
            self.console.print(
                f"  {images:,} of {self.total_images:,} images · {speed:,.0f} images/s",
                highlight=False,
            )

    def on_train_end(self, trainer: Trainer, pl_module: GenerativeModel) -> None:  # type: ignore[override]
        """Fill the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=pl_module.images_shown)

    def teardown(self, trainer: Trainer, pl_module: GenerativeModel, stage: str) -> None:  # type: ignore[override]
        """Take the bar down, whatever ended the run."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.stop()
            self._bar = None
