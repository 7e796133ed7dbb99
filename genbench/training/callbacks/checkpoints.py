"""The complete state of a run, written so that a kill at any moment leaves a whole file behind."""

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer

from genbench.errors import UserMistake
from genbench.runs.versions import THEN, after_resume, with_versions
from genbench.training.callbacks.contract import RunCallback
from genbench.training.module import Training


class Checkpoints(RunCallback):
    """`last.ckpt` every `minutes`, `final.ckpt` at the end; written aside, then renamed.

    Each holds `method`, what defines the run; a resume under another method is refused. The trainer
    may change: `trainers` lists those of the run so far, each with the `images` at which it took over.
    Precision belongs to both: if a resume asks for another one (`precision_asked`), it is used, and the
    method becomes that of a run with two precisions.
    """

    def __init__(
        self,
        directory: Path,
        minutes: float,
        method: Mapping[str, Any],
        trainer: Mapping[str, Any],
        *,
        precision_asked: bool,
    ) -> None:
        self.directory, self.seconds = directory, 60 * minutes
        self.method, self.trainer, self.precision_asked = method, trainer, precision_asked
        self.trainers: list[dict[str, Any]] = []
        self._due = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The method, the trainers and the global random states, as plain types."""
        return {
            "method": dict(self.method),
            "trainers": list(self.trainers),
            "random": random_states(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse another method; restore the global random states."""
        before, now = dict(state_dict["method"]), str(self.method["precision"])
        if before["precision"].split(THEN)[-1] != now:
            if not self.precision_asked:
                raise UserMistake(
                    f"this run was trained in {before['precision']}, and here trainer.precision=auto "
                    f"is {now}: give trainer.precision={before['precision'].split(THEN)[-1]} to stay "
                    f"with it, or trainer.precision={now}, which makes it another method"
                )
            before["precision"] += THEN + now
        before = with_versions(
            before, after_resume(before.get("versions", {}), self.method.get("versions", {}))
        )
        self.method = with_versions(
            {**self.method, "precision": before["precision"]}, before.get("versions", {})
        )
        changes = differences(before, self.method)
        if changes:
            raise UserMistake(
                "this checkpoint belongs to another method, and a resumed run must stay the run it "
                f"was: {'; '.join(changes)}. Put it back, or train a new run"
            )
        self.trainers = list(state_dict.get("trainers", []))  # older checkpoints lack it
        restore_random_states(state_dict["random"])

    def took_over(self, images: int) -> None:
        """Add this trainer to the list if it differs from the last one."""
        last = self.trainers[-1] if self.trainers else {}
        if {**last, "images": 0} != {**self.trainer, "images": 0}:
            self.trainers = [*self.trainers, {"images": images, **self.trainer}]

    def on_start(self, run: Training) -> None:
        """Start the clock, and remove what an interrupted write left."""
        self._due = time.monotonic() + self.seconds
        self.took_over(run.images_shown)
        if run.trainer.is_global_zero:
            for partial in self.directory.glob("*.partial"):
                partial.unlink()

    @property
    def is_due(self) -> bool:
        """Whether the last save is `minutes` ago on this rank; all ranks must save together."""
        return time.monotonic() >= self._due

    def on_end(self, run: Training) -> None:
        """Save the final weights."""
        self.save(run.trainer, "final.ckpt")

    def save(self, trainer: Trainer, name: str = "last.ckpt") -> Path:
        """Write `name`; every DDP rank must call it."""
        path = self.directory / name
        save_checkpoint(trainer, path)
        self._due = time.monotonic() + self.seconds
        return path


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write a checkpoint that is there whole or not at all; every DDP rank must call it."""
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(partial)
    if trainer.is_global_zero:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)


def differences(before: Any, after: Any, name: str = "") -> list[str]:
    """Name the values in which two nested mappings differ, as `key: before -> after`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            line
            for key in sorted({*before, *after})
            for line in differences(before.get(key), after.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if before == after else [f"{name}: {before} -> {after}"]


def random_states() -> dict[str, Any]:
    """States of Python's, NumPy's and PyTorch's global generators, in types that load safely."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Set the global generators; those of devices that are not here any more are left out."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available():
        for device, state in list(enumerate(states["cuda"]))[: torch.cuda.device_count()]:
            torch.cuda.set_rng_state(state.cpu(), device)
