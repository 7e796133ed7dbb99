"""N(0, I) made narrower: the truncation trick of Brock et al. 2019, https://arxiv.org/abs/1809.11096.

It trades recall for precision, so that one point says nothing: `curve` makes several.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genbench.errors import UserMistake
from genbench.priors.contract import Prior
from genbench.ranges import number


class Truncated(Prior):
    """Draws of N(0, I) times `scale`, or with every coordinate drawn again until |z| <= `threshold`.

    For every model that draws from N(0, I), a GAN too; nothing is fitted.
    """

    kind = "truncated"
    needs_codes = False

    def __init__(self, scale: float | None = None, threshold: float | None = None) -> None:
        super().__init__(codes=0, seed=0)
        if (scale is None) == (threshold is None):
            raise UserMistake(
                f"prior.truncated.scale={scale}, prior.truncated.threshold={threshold}: give one of them"
            )
        for name, value in (("scale", scale), ("threshold", threshold)):
            if value is not None:
                number(f"prior.truncated.{name}", value, above=True)
        self.scale, self.threshold = scale, threshold

    @property
    def settings(self) -> Mapping[str, Any]:
        """The one that was given."""
        both = {"scale": self.scale, "threshold": self.threshold}
        return {name: value for name, value in both.items() if value is not None}

    def fit(self, codes: Tensor, generator: torch.Generator) -> None:
        """Note the number of latents."""
        self.tensors = {"dimensions": torch.tensor(codes.shape[1])}

    @property
    def parameters(self) -> int:
        """None."""
        return 0

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Scale, or draw by the inverse CDF between the thresholds, which is what drawing again gives."""
        dimensions = int(self.fitted["dimensions"])
        if self.scale is not None:
            return torch.randn(n, dimensions, generator=generator) * self.scale
        uniform = torch.rand(n, dimensions, generator=generator, dtype=torch.float64)
        half = self._mass / 2
        within: Tensor = torch.special.ndtri(0.5 - half + 2 * half * uniform)
        return within.clamp(-self._bound, self._bound).float()

    def log_prob(self, z: Tensor) -> Tensor:
        """N(0, scale^2 I), or N(0, I) over its mass between the thresholds and -inf outside."""
        width = 1.0 if self.scale is None else self.scale
        each = -0.5 * (z.double() / width).square() - math.log(width) - 0.5 * math.log(2 * math.pi)
        if self.scale is None:
            each = (each - math.log(self._mass)).where(z.abs() <= self._bound, -math.inf)
        return each.sum(1)

    @property
    def _bound(self) -> float:
        assert self.threshold is not None
        return self.threshold

    @property
    def _mass(self) -> float:
        """Probability of |z| <= threshold."""
        return math.erf(self._bound / math.sqrt(2))


def curve(
    scale: float | Sequence[float] | None = None, threshold: float | Sequence[float] | None = None
) -> list[Truncated]:
    """A prior for each value of one of both: a curve of precision against recall, never one point."""
    scales, thresholds = _values(scale), _values(threshold)
    if scales and thresholds:
        return [Truncated(scales[0], thresholds[0])]  # which refuses both
    found = [Truncated(scale=value) for value in scales]
    return found or [Truncated(threshold=value) for value in thresholds] or [Truncated()]


def _values(given: Any) -> list[Any]:
    if given is None:
        return []
    return [given] if isinstance(given, int | float | str) else [*given]
