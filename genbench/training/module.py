"""A model in training, as Lightning sees it.

Lightning starts the processes, casts, calls callbacks and writes checkpoints; it takes no step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.models.contract import Draws, GenerativeModel, untracked
from genbench.networks.conditional import given
from genbench.training.cuda_graph import Capture, make_capturable
from genbench.training.guards import Skipped
from genbench.training.means import RunningMeans
from genbench.training.seat import Seat, take_seats
from genbench.training.step import Stepper
from genbench.training.workload import Tally, Work

STEP_HOOK = "on_before_optimizer_step"
BACKWARD_HOOKS = ("on_before_backward", "on_after_backward")


@dataclass(frozen=True)
class Pace:
    """How steps are taken, whatever the model."""

    batch_size: int  # images per step, over all ranks
    seed: int = 0
    rate: Callable[[int], float] | None = None  # factor of the learning rates by `images_shown`
    clip: Mapping[str, float] = field(default_factory=dict)  # largest gradient norm by player
    parts: int = 1  # in which a batch is taken where memory does not hold it
    make_scaler: Callable[[], GradScaler] | None = None  # for each player, under 16-mixed
    capture: Capture | None = None  # replays steps from a CUDA graph
    work: Work = field(default_factory=dict)  # of a step, as measured
    total: int = 0  # images of the budget, on the clock of `images_shown`; 0: not known


class Training(LightningModule):
    """A model in training: one counted step per step, randomness from (seed, step), one way to move.

    Its `state_dict` is the model's: names in a checkpoint do not depend on who trained it.
    """

    def __init__(self, model: GenerativeModel, data: ImageData, pace: Pace) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.data, self.pace = model, data, pace
        self.steps = 0  # done: the position of the run
        self.tally = Tally(model.players(), pace.work, pace.batch_size)
        self.after_step: list[Callable[[Training], None]] = []
        self.seats: dict[str, Seat] = {}
        self._stepper: Stepper | None = None
        self._means = RunningMeans()
        self._loaded: dict[str, Any] = {}  # of a checkpoint, until there are seats for it

    @property
    def images_shown(self) -> int:
        """The clock of the run: images as steps x batch size, whatever a step does with a batch."""
        return self.steps * self.pace.batch_size

    @property
    def moves(self) -> dict[str, int]:
        """Made so far, by player."""
        return self.tally.moves

    # --- data and optimizers --------------------------------------------------------------------

    def train_dataloader(self) -> Any:
        """This rank's batches."""
        trainer = self.trainer
        return self.data.train_dataloader(
            trainer.global_rank, trainer.world_size, trainer.strategy.root_device
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Level indices become images on the device; a model that knows labels gets (images, labels)."""
        images = self.data.training_images(batch)
        if self.model.condition is None:
            return images
        return images, self.data.training_labels(batch)

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer per player."""
        made = [p.optimizer(p.parameters()) for p in self.model.players().values()]
        # read now: a checkpoint brings the rates of its own step
        self._rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in made]
        return made

    def on_fit_start(self) -> None:
        """Give every player its seat, now that parameters are on their device."""
        pace, world = self.pace, self.trainer.world_size
        draws = self.model.draws = Draws(pace.seed, self.device)
        draws.share, draws.shares = self.trainer.global_rank * pace.parts, world * pace.parts
        self.model.track = self._track
        self.model.progress = torch.zeros((), device=self.device)
        self._means.to(self.device)
        made: Any = self.optimizers(use_pl_optimizer=False)
        self.seats = take_seats(
            self.model.players(),
            made if isinstance(made, list) else [made],
            self._rates,
            pace.clip,
            self.device,
            pace.make_scaler,
            self._loaded,
            together=world > 1,
        )
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        listeners = [c for c in callbacks if is_overridden(STEP_HOOK, c, Callback)]
        heard = any(is_overridden(hook, c, Callback) for hook in BACKWARD_HOOKS for c in callbacks)
        if pace.capture is not None and listeners:
            raise UserMistake(
                "trainer.cuda_graph=true takes steps without Python, and a callback wants to see each "
                "of them: leave it out, or choose trainer.cuda_graph=false"
            )
        self._stepper = Stepper(
            self.model,
            self.seats,
            self._track,
            # Lightning's wrapper takes 0.15 ms, and only these hooks need it
            self._backward if heard else torch.autograd.backward,
            [partial(c.on_before_optimizer_step, self.trainer, self) for c in listeners],
            pace.parts,
        )

    def on_train_start(self) -> None:
        """Prepare the optimizers for a capture, once they have what a checkpoint holds."""
        optimizers = {name: seat.optimizer for name, seat in self.seats.items()}
        make_capturable(optimizers, self.pace.capture is not None)

    def teardown(self, stage: str) -> None:
        """Let go of the model; the memory of a step, and of its graph, is free for what follows."""
        self.model.draws, self.model.track = Draws(), untracked
        self.model.progress = torch.zeros(())
        self.pace = replace(self.pace, capture=None)
        for parameter in self.model.parameters():
            parameter.grad = None

    def _backward(self, value: Tensor, start: Tensor | None) -> None:
        self.manual_backward(value, gradient=start)

    # --- steps ----------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Take the steps in a loader's batch, one after the other."""
        pace, stepper = self.pace, self._stepper
        assert stepper is not None
        # Lightning's `global_step`, by which a user's callback may count, is moved on by hand
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        size = self.model.discriminator_steps * pace.batch_size // self.trainer.world_size
        shown, labels = batch if self.model.condition is not None else (batch, None)
        told = repeat(None) if labels is None else torch.split(labels, size)
        for images, own in zip(torch.split(shown, size), told, strict=False):
            if pace.rate is not None:
                for seat in self.seats.values():
                    seat.set_rate(pace.rate(self.images_shown))
            progress_made = self.images_shown / pace.total if pace.total else 0.0
            self.model.progress.fill_(progress_made)
            for seat in self.seats.values():
                seat.change(progress_made)
            if pace.capture is None:
                stepper.take(images, self.steps, *given(own))
            else:
                stepper.replay(images, self.steps, pace.capture, *given(own))
            self.steps += 1
            self.tally.add(stepper.moves, len(images) * self.trainer.world_size)
            progress.increment_ready()
            progress.increment_completed()
            for listener in self.after_step:
                listener(self)

    def _track(self, name: str, value: Tensor) -> None:
        """Add a scalar to the running mean `name`; it stays on the device until `means`."""
        capture = self.pace.capture
        if capture is None or not capture.keeps(name, value):
            self._means.add(name, value)

    def means(self) -> dict[str, float]:
        """Mean of the finite values tracked since the last call, NaN where none was; one transfer.

        Over all ranks: every one of them must call it at the same step.
        """
        return self._means.take(self.trainer.world_size)

    def skipped(self) -> dict[str, Skipped]:
        """Moves of each player that were left out because a loss or a gradient was not finite."""
        loaded = {
            name: Skipped(*counts) for name, counts in self._loaded.get("skipped", {}).items()
        }
        return {name: seat.guard.skipped for name, seat in self.seats.items()} or loaded

    def learning_rates(self) -> dict[str, float]:
        """Learning rate of each player's last step, by `lr/<player>`; empty where they are constant."""
        if self.pace.rate is None:
            return {}
        return {f"lr/{n}": float(s.optimizer.param_groups[0]["lr"]) for n, s in self.seats.items()}

    # --- checkpoints ----------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own."""
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The model's own."""
        return self.model.load_state_dict(state_dict, *args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the position of the run, and what was tracked since the last row of the history."""
        checkpoint["genbench_steps"] = self.steps
        checkpoint.update(self._means.for_checkpoint())
        checkpoint["genbench_skipped"] = {name: tuple(s) for name, s in self.skipped().items()}
        checkpoint["genbench_tally"] = self.tally.state_dict()
        scalers = {n: s.scaler.state_dict() for n, s in self.seats.items() if s.scaler is not None}
        if scalers:
            checkpoint["genbench_scalers"] = scalers

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the position of the run up again; older checkpoints hold less."""
        self.steps, model = checkpoint["genbench_steps"], self.model
        assumed = {  # models of a time when moves were not counted made as many in every step
            name: self.steps * (1 if name == model.counted else model.discriminator_steps)
            for name in model.players()
        }
        before = {  # a tally of before real images, rows and multiply-adds were counted
            "moves": checkpoint.get("genbench_moves", assumed),
            "real_images": self.images_shown * model.discriminator_steps,
        }
        self.tally.load_state_dict(checkpoint.get("genbench_tally", before))
        trainer = self._trainer  # None where a trained run is only scored
        self._means.take_up(
            checkpoint, *((trainer.global_rank, trainer.world_size) if trainer else (0, 1))
        )
        self._loaded = {
            "skipped": checkpoint.get("genbench_skipped", {}),
            "scalers": checkpoint.get("genbench_scalers") or checkpoint.get("PlayerScaling", {}),
        }
