"""What all callbacks of a run share: Lightning's hooks, translated once."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer

from genbench.training.module import Training


class RunCallback(Callback):
    """A callback that sees a run and its clock of images; it overrides any of these methods."""

    _began = 0  # `images_shown` when the batch at hand began

    def on_start(self, run: Training) -> None:
        """Training begins, or goes on from a checkpoint."""

    def before_batch(self, run: Training) -> None:
        """A batch has arrived."""

    def after_batch(self, run: Training, since: int) -> None:
        """The steps of a batch are done, which began at `since` of `images_shown`."""

    def before_end(self, run: Training) -> None:
        """The budget is used up, and the final checkpoint not written yet."""

    def on_end(self, run: Training) -> None:
        """The budget is used up."""

    def close(self) -> None:
        """Nothing follows, whatever ended the training."""

    # --- Lightning's names ----------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's name of `on_start`."""
        self.on_start(cast(Training, pl_module))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's name of `before_batch`."""
        run = cast(Training, pl_module)
        self._began = run.images_shown
        self.before_batch(run)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Lightning's name of `after_batch`."""
        self.after_batch(cast(Training, pl_module), self._began)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's name of `before_end`: all data is the one epoch."""
        self.before_end(cast(Training, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's name of `on_end`."""
        self.on_end(cast(Training, pl_module))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's name of `close`."""
        self.close()


@contextmanager
def closing(callbacks: Iterable[Callback]) -> Iterator[None]:
    """Context after which those of genbench are closed: Lightning does not tell them after an exception."""
    try:
        yield
    finally:
        for callback in callbacks:
            if isinstance(callback, RunCallback):
                callback.close()


def passes(every: float, since: int, now: int) -> bool:
    """Whether a multiple of `every` images lies between two moments: above `since`, up to `now`."""
    return now // every > since // every
