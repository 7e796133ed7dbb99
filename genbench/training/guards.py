"""Skips steps that would ruin a network: those whose loss or gradient is NaN or infinite.

On a CPU the host reads the answer at once. On a GPU there is no host synchronisation: whether a step is skipped is
decided, obeyed and counted on the device, and read when the history is written. Only an optimizer that
is not fused cannot be stopped there: for it the host waits.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Skipped(NamedTuple):
    """Steps of a player that were skipped: since the beginning, and in a row until now."""

    total: int = 0
    in_a_row: int = 0


class Guard(ABC):
    """Guards one player: call `seed` before its backward, and `judge` between that and its step."""

    skipped: Skipped  # reading it from a GPU synchronises

    def __init__(self, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        self._parameters = list(parameters)
        self._found, self._one, self._zero = (
            torch.full((), value, device=device) for value in (0.0, 1.0, 0.0)
        )

    @abstractmethod
    def seed(self, loss: Tensor) -> Tensor | None:
        """Gradient passed to `backward`: None (which means 1), or NaN if the loss is not finite.

        Then every gradient is NaN, and all DDP ranks, which average theirs, skip the step together.
        """

    @abstractmethod
    def judge(self) -> bool:
        """Check the gradients, count, and return whether the caller must skip the step."""

    def _check(self) -> None:
        """Set `_found` to 1 if a gradient is not finite; another value stays."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if gradients:  # the kernel of GradScaler; its multiplication by 1 changes no bit
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, self._found, self._one)


class HostGuard(Guard):
    """Checks on the host. With `counts_only` it is a gradient scaler that skips the step."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], device: torch.device, *, counts_only: bool = False
    ) -> None:
        super().__init__(parameters, device)
        self._counts_only, self.skipped = counts_only, Skipped()

    def seed(self, loss: Tensor) -> Tensor | None:
        """NaN for a loss that is not finite, None otherwise."""
        return None if math.isfinite(loss.item()) else torch.full_like(loss, math.nan)

    @torch.no_grad()
    def judge(self) -> bool:
        """Check, count, return."""
        self._check()
        if not self._found.item():
            if self.skipped.in_a_row:
                self.skipped = Skipped(self.skipped.total)
            return False
        self._found.zero_()
        self.skipped = Skipped(self.skipped.total + 1, self.skipped.in_a_row + 1)
        return not self._counts_only


class DeviceGuard(Guard):
    """Checks on the device; a fused optimizer reads `found_inf` and skips its step itself.

    With `counts_only` it is a gradient scaler that skips the step.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        device: torch.device,
        optimizer: Optimizer,
        *,
        counts_only: bool = False,
    ) -> None:
        super().__init__(parameters, device)
        self._total, self._in_a_row = torch.zeros((), device=device), torch.zeros((), device=device)
        if not counts_only:
            optimizer.found_inf = self._found  # type: ignore[attr-defined]

    def seed(self, loss: Tensor) -> Tensor:
        """1 + 0 * loss."""
        return torch.addcmul(self._one, loss.detach(), self._zero)

    @torch.no_grad()
    def judge(self) -> bool:
        """Check and count on the device; the caller always goes on."""
        self._found.zero_()
        self._check()
        self._total.add_(self._found)
        torch.addcmul(self._found, self._in_a_row, self._found, out=self._in_a_row)
        return False

    @property
    def skipped(self) -> Skipped:
        """What was counted on the device; synchronises."""
        return Skipped(*(int(x) for x in torch.stack([self._total, self._in_a_row]).tolist()))

    @skipped.setter
    def skipped(self, counts: Skipped) -> None:
        self._total.fill_(counts.total)
        self._in_a_row.fill_(counts.in_a_row)


def guard_of(
    parameters: Iterable[nn.Parameter], optimizer: Optimizer, device: torch.device, *, scaled: bool
) -> Guard:
    """Choose a guard by what the optimizer supports; `scaled`: a gradient scaler skips steps."""
    obeys = getattr(optimizer, "_step_supports_amp_scaling", False)
    if device.type == "cpu" or not (obeys or scaled):
        return HostGuard(parameters, device, counts_only=scaled)
    return DeviceGuard(parameters, device, optimizer, counts_only=scaled)
