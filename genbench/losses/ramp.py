"""Weights that change while a model is trained."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.errors import UserMistake
from genbench.ranges import number


@dataclass(frozen=True)
class Cosine:
    """From `begin` along half a cosine to `end`, over the first `share` of the budget; then `end`.

    The burn-in of R3GAN (Huang et al. 2024, https://arxiv.org/abs/2501.05441). Raises UserMistake for a
    share that is not above 0 and at most 1.
    """

    begin: float
    end: float
    share: float

    def __post_init__(self) -> None:
        """Refuse what is no ramp."""
        for name in ("begin", "end", "share"):
            number(f"{type(self).__name__}.{name}", getattr(self, name))
        if not 0 < self.share <= 1:
            raise UserMistake(
                f"share={self.share} of a ramp is not a share of the budget: give more than 0, up to 1"
            )

    def at(self, progress: float) -> float:
        """Value where the share `progress` of the budget is done."""
        way = min(1.0, progress / self.share)
        return self.end + (self.begin - self.end) * 0.5 * (1 + math.cos(math.pi * way))

    def of(self, progress: Tensor) -> Tensor:
        """The same for a scalar on any device, which is not waited for."""
        way = (progress / self.share).clamp(max=1.0)
        return self.end + (self.begin - self.end) * 0.5 * (1 + torch.cos(math.pi * way))
