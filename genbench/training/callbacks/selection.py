"""Keeps the best weights of a run, chosen on the validation split: `best.ckpt`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from genbench.errors import UserMistake
from genbench.models.contract import GenerativeModel
from genbench.training.callbacks.checkpoints import Checkpoints

Measure = Callable[[GenerativeModel, int, int], float | None]


class Selection(Callback):
    """`checks` times over the budget: measure, log as `selection/fd`, keep the smallest.

    `measure(model, num_samples, seed)` is the distance; None where samples are not finite.
    """

    name = "best.ckpt"

    def __init__(
        self,
        measure: Measure,
        directory: Path,
        checks: int,
        num_samples: int,
        seed: int,
    ) -> None:
        if checks < 1:
            raise UserMistake(f"selection.checks={checks}: it must be 1 or more; selection=none")
        self.measure, self.num_samples, self.seed = measure, num_samples, seed
        self.checkpoints = Checkpoints(directory / "checkpoints", minutes=float("inf"))
        self.checks, self.every_images = checks, 1
        self.best: float | None = None
        self.images = 0  # shown when the best was found

    def on_train_start(self, trainer: Trainer, pl_module: GenerativeModel) -> None:  # type: ignore[override]
        """Divide the budget: the loader's length is its number of steps."""
        steps = len(trainer.train_dataloader)  # type: ignore[arg-type]
        self.every_images = max(1, steps * pl_module.batch_size // self.checks)

    @property
    def path(self) -> Path:
        """Where the best weights are, if any were kept."""
        return self.checkpoints.directory / self.name

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: GenerativeModel, batch: Any, batch_idx: int
    ) -> None:
        """Remember where the batch began."""
        self._before = pl_module.images_shown

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: GenerativeModel,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure when due; the first rank decides for all."""
        images = pl_module.images_shown
        if images // self.every_images == self._before // self.every_images:
            return
        value = None
        if trainer.is_global_zero:
            value = self.measure(pl_module, self.num_samples, self.seed)
            if value is not None:
                for logger in trainer.loggers:
                    logger.log_metrics({"selection/fd": value}, step=images)
        better = value is not None and (self.best is None or value < self.best)
        if trainer.strategy.broadcast(better):
            self.best, self.images = value, images
            self.checkpoints.save(trainer, self.name)

    def state_dict(self) -> dict[str, Any]:
        """What was best so far."""
        return {"best": self.best, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.images = state_dict["best"], state_dict["images"]
