"""A player in training: its optimizer, and what else its moves need."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from genbench.models.contract import Player
from genbench.training.exchange import Exchange
from genbench.training.guards import Guard, Skipped, guard_of

Backward = Callable[[Tensor, Tensor | None], None]  # (value, gradient to begin with)
Look = Callable[[Optimizer], None]  # shows gradients to a callback


@dataclass
class Seat:
    """What one player moves with. All other players are frozen during its backward."""

    optimizer: Optimizer
    own: list[nn.Parameter]
    others: list[nn.Parameter]  # of the other players, as far as it does not share them
    guard: Guard
    clip: float | None  # largest norm of its gradient
    rates: list[float]  # configured learning rate of each parameter group
    scaler: GradScaler | None = None  # under 16-mixed: see below
    exchange: Exchange | None = (
        None  # of several ranks, which move it by the mean of their gradients
    )
    changes: Callable[[float], Mapping[str, Any]] | None = None  # see `Player`

    def descend(
        self, loss: Callable[[], Tensor], parts: int, backward: Backward, last: bool = True
    ) -> Tensor:
        """Add the gradient of `loss() / parts` to the player's own; returns the loss.

        `last`: the player moves next, not on another part of the batch.
        """
        with frozen(self.others):
            value = loss()
            start = self.guard.seed(value)
            scaled = value if parts == 1 else value / parts
            if self.scaler is not None:
                # half precision loses small gradients: the loss is multiplied, the gradient divided
                # again before the step. How far is found by trying, for each player by itself: with
                # one factor for two, the one that overflows would take range from the other
                scaled = self.scaler.scale(scaled)
            with self.exchange.during() if self.exchange and last else nullcontext():
                backward(scaled, start)
        return value

    def move(self, looks: Sequence[Look]) -> None:
        """Take one step of the optimizer, if the gradient is finite; `looks` see it before clipping."""
        if self.exchange is not None:
            self.exchange.end()
        if self.guard.judge():  # before clipping, which would spread a NaN
            return
        if self.scaler is not None and (self.clip or looks):
            self.scaler.unscale_(self.optimizer)
        for look in looks:
            look(self.optimizer)
        if self.clip:
            nn.utils.clip_grad_norm_(self.own, self.clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def set_rate(self, factor: float) -> None:
        """Multiply the configured learning rates."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def change(self, progress: float) -> None:
        """Set what the player changes of its optimizer with the share of the budget that is done."""
        if self.changes is not None:
            for group in self.optimizer.param_groups:
                group.update(self.changes(progress))


def take_seats(
    players: Mapping[str, Player],
    optimizers: Sequence[Optimizer],
    rates: Sequence[list[float]],
    clip: Mapping[str, float],
    device: torch.device,
    make_scaler: Callable[[], GradScaler] | None,
    loaded: Mapping[str, Any],
    together: bool = False,
) -> dict[str, Seat]:
    """Give every player its seat; `loaded` is what a checkpoint held of guards and scalers.

    `together`: several ranks train the model.
    """
    seats = {}
    for (name, player), optimizer, configured in zip(
        players.items(), optimizers, rates, strict=True
    ):
        own = {id(p): p for p in player.parameters()}
        every = [p for n, other in players.items() if n != name for p in other.parameters()]
        scaler = make_scaler() if make_scaler else None
        if scaler is not None and name in loaded.get("scalers", {}):
            scaler.load_state_dict(loaded["scalers"][name])
        guard = guard_of(own.values(), optimizer, device, scaled=scaler is not None)
        guard.skipped = Skipped(*loaded.get("skipped", {}).get(name, ()))
        seats[name] = Seat(
            optimizer=optimizer,
            own=[*own.values()],
            others=[p for p in every if p.requires_grad and id(p) not in own],
            guard=guard,
            clip=clip.get(name),
            rates=configured,
            scaler=scaler,
            exchange=Exchange([*own.values()]) if together else None,
            changes=player.changes,
        )
    return seats


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let no gradient reach these parameters for a while."""
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
