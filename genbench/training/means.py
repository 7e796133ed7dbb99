"""Running means of what a model tells of itself, without waiting for its device."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

PORTION = 64  # values that are added up at once: cheaper than one by one


class RunningMeans:
    """Means by name of the finite values among those added since the last `take`.

    One skipped step must not make a whole row of the history NaN. Values are summed in portions of
    equal size, so that rounding does not depend on where a run was interrupted.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[Tensor]] = {}
        self._sums: dict[str, Tensor] = {}  # (2,): of the finite values, and how many these are

    def add(self, name: str, value: Tensor) -> None:
        """Add a scalar tensor."""
        values = self._waiting.setdefault(name, [])
        values.append(value.detach().float())
        if len(values) >= PORTION:
            self._add_up(name)

    def _add_up(self, name: str) -> None:
        values = torch.stack(self._waiting[name])
        finite = values.isfinite()
        sums = torch.stack([values.where(finite, 0.0).sum(), finite.float().sum()])
        self._sums[name] = self._sums[name] + sums if name in self._sums else sums
        self._waiting[name] = []

    def take(self, world_size: int) -> dict[str, float]:
        """Return the means and start over; NaN where no value was finite. One host transfer.

        A collective over all DDP ranks: every rank must call it at the same step.
        """
        for name, values in self._waiting.items():
            if values:
                self._add_up(name)
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values()))
        if world_size > 1:
            torch.distributed.all_reduce(sums)
        pairs = zip(self._sums, sums.tolist(), strict=True)
        means = {name: total / count if count else math.nan for name, (total, count) in pairs}
        self._waiting, self._sums = {}, {}
        return means

    def to(self, device: torch.device) -> None:
        """Move to another device."""
        self._waiting = {k: [v.to(device) for v in values] for k, values in self._waiting.items()}
        self._sums = {name: sums.to(device) for name, sums in self._sums.items()}

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Everything added since the last `take`."""
        waiting = {k: torch.stack(values).cpu() for k, values in self._waiting.items() if values}
        return {"waiting": waiting, "sums": {name: s.cpu() for name, s in self._sums.items()}}

    def for_checkpoint(self) -> dict[str, Any]:
        """The state under its names in a checkpoint, with those of all DDP ranks, which must all call it."""
        own = {"genbench_means": self.state_dict()}
        if not torch.distributed.is_initialized():
            return own
        every: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(every, own["genbench_means"])
        return {**own, "genbench_means_of_ranks": every}

    def take_up(self, checkpoint: Mapping[str, Any], rank: int, world_size: int) -> None:
        """Continue from a checkpoint; as the first rank did where there were not as many, or it is older."""
        every = checkpoint.get("genbench_means_of_ranks", [])
        if len(every) == world_size:
            self.load_state_dict(every[rank])
        elif "genbench_means" in checkpoint:
            self.load_state_dict(checkpoint["genbench_means"])

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what `state_dict` returned."""
        self._waiting = {name: [*values] for name, values in state["waiting"].items()}
        self._sums = dict(state["sums"])
