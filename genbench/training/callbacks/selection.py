"""Keeps the best weights of a run, chosen on the validation split: `best.ckpt`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from genbench.models.contract import GenerativeModel
from genbench.ranges import whole
from genbench.training.callbacks.checkpoints import save_checkpoint
from genbench.training.callbacks.contract import RunCallback, passes
from genbench.training.module import Training

Measure = Callable[[GenerativeModel, int, int], float | None]


class Selection(RunCallback):
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
        whole("selection.checks", checks)
        whole("selection.num_samples", num_samples, 2)
        whole("selection.seed", seed, None)
        self.measure, self.num_samples, self.seed = measure, num_samples, seed
        self.path = directory / "checkpoints" / self.name  # of the best weights, if any were kept
        self.checks, self.every_images = checks, 1
        self.best: float | None = None
        self.images = 0  # shown when the best was found

    def on_start(self, run: Training) -> None:
        """Divide the budget into `checks`; the loader's length is its number of steps."""
        steps = len(run.trainer.train_dataloader)  # type: ignore[arg-type]
        self.every_images = max(1, steps * run.pace.batch_size // self.checks)

    def after_batch(self, run: Training, since: int) -> None:
        """Measure when due; the first rank decides for all."""
        trainer, images = run.trainer, run.images_shown
        if not passes(self.every_images, since, images):
            return
        value = None
        if trainer.is_global_zero:
            value = self.measure(run.model, self.num_samples, self.seed)
            if value is not None:
                for logger in trainer.loggers:
                    logger.log_metrics({"selection/fd": value}, step=images)
        better = value is not None and (self.best is None or value < self.best)
        if trainer.strategy.broadcast(better):
            self.best, self.images = value, images
            save_checkpoint(trainer, self.path)

    def state_dict(self) -> dict[str, Any]:
        """The smallest distance so far, and where it was found."""
        return {"best": self.best, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best, self.images = state_dict["best"], state_dict["images"]
