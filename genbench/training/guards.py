"""Steps that would ruin a network are left out: a loss or a gradient that is no number.

On a CPU a look costs nothing. A GPU is not waited for: whether a step is skipped is decided, obeyed
and counted there, and read when the history is written. An optimizer that cannot be told so on the
device (one that is not fused) is waited for.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Skipped(NamedTuple):
    """Steps of a player that were left out: since the beginning, and without one between."""

    total: int = 0
    in_a_row: int = 0


class Guard(ABC):
    """Watches over one player: `seed` before its backward, `judge` between that and its step."""

    skipped: Skipped  # on a device, reading it waits

    def __init__(self, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        self._parameters = list(parameters)
        self._found, self._one, self._zero = (
            torch.full((), value, device=device) for value in (0.0, 1.0, 0.0)
        )

    @abstractmethod
    def seed(self, loss: Tensor) -> Tensor | None:
        """What backward begins with: 1 (or None, which means it), NaN for a loss that is not finite.

        So every gradient is NaN, and where ranks average theirs, all of them skip alike.
        """

    @abstractmethod
    def judge(self) -> bool:
        """Look at the gradients, count, and tell whether the caller must leave the step out."""

    def _look(self) -> None:
        """Set `_found` to 1 if a gradient is not finite; another value stays."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if gradients:  # the kernel of GradScaler; its multiplication by 1 changes no bit
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, self._found, self._one)


class HostGuard(Guard):
    """Looks at once. With `counts_only` the step is left to somebody else: a gradient scaler."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], device: torch.device, *, counts_only: bool = False
    ) -> None:
        super().__init__(parameters, device)
        self._counts_only, self.skipped = counts_only, Skipped()

    def seed(self, loss: Tensor) -> Tensor | None:
        """None, but for a loss that is not finite."""
        return None if math.isfinite(loss.item()) else torch.full_like(loss, math.nan)

    @torch.no_grad()
    def judge(self) -> bool:
        """Look, count, tell."""
        self._look()
        if not self._found.item():
            if self.skipped.in_a_row:
                self.skipped = Skipped(self.skipped.total)
            return False
        self._found.zero_()
        self.skipped = Skipped(self.skipped.total + 1, self.skipped.in_a_row + 1)
        return not self._counts_only


class DeviceGuard(Guard):
    """Looks without waiting; a fused optimizer reads `found_inf` and leaves its step out itself.

    With `counts_only`, no optimizer is told: a gradient scaler does that.
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
        """Look and count; the caller goes on."""
        self._found.zero_()
        self._look()
        self._total.add_(self._found)
        torch.addcmul(self._found, self._in_a_row, self._found, out=self._in_a_row)
        return False

    @property
    def skipped(self) -> Skipped:
        """What was counted on the device."""
        return Skipped(*(int(x) for x in torch.stack([self._total, self._in_a_row]).tolist()))

    @skipped.setter
    def skipped(self, counts: Skipped) -> None:
        self._total.fill_(counts.total)
        self._in_a_row.fill_(counts.in_a_row)


def guard_of(
    parameters: Iterable[nn.Parameter], optimizer: Optimizer, device: torch.device, *, scaled: bool
) -> Guard:
    """Choose by what the optimizer understands; `scaled`: a gradient scaler leaves steps out."""
    obeys = getattr(optimizer, "_step_supports_amp_scaling", False)
    if device.type == "cpu" or not (obeys or scaled):
        return HostGuard(parameters, device, counts_only=scaled)
    return DeviceGuard(parameters, device, optimizer, counts_only=scaled)
