"""A progress bar in images: how far, how fast, how long still."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genbench.training.callbacks.contract import RunCallback, passes
from genbench.training.module import Training

REFRESH_SECONDS = 0.5
LINES = 10  # printed over a run where stderr is no terminal


class ProgressBar(RunCallback):
    """A bar on a terminal, one line for every tenth of the run elsewhere."""

    def __init__(self, total_images: int) -> None:
        self.total_images = total_images
        self.console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._last = (0.0, 0)

    def on_start(self, run: Training) -> None:
        """Show the bar."""
        self._last = time.monotonic(), run.images_shown
        if run.trainer.is_global_zero and self.console.is_terminal:
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
                "train", total=self.total_images, completed=run.images_shown, speed=""
            )

    def after_batch(self, run: Training, since: int) -> None:
        """Move on, twice a second or every tenth of the run."""
        if not run.trainer.is_global_zero:
            return
        now, images = time.monotonic(), run.images_shown
        if self._bar is not None:
            if now - self._last[0] >= REFRESH_SECONDS:
                speed = (images - self._last[1]) / (now - self._last[0])
                self._last = now, images
                self._bar.update(self._task, completed=images, speed=f"{speed:,.0f}/s")
                self._bar.refresh()
        elif passes(self.total_images / LINES, since, images):
            speed = (images - self._last[1]) / (now - self._last[0])
            self._last = now, images
            self.console.print(
                f"  {images:,} of {self.total_images:,} images · {speed:,.0f} images/s",
                highlight=False,
            )

    def on_end(self, run: Training) -> None:
        """Fill the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=run.images_shown)

    def close(self) -> None:
        """Remove the bar, whatever ended the run."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.stop()
            self._bar = None
