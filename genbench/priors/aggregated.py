"""The aggregate posterior: draws from q(z | x) of training images. A ceiling and no prior: it copies."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genbench.priors.contract import Prior


class Aggregated(Prior):
    """The codes themselves in random order; all of them before any comes again.

    What it decodes are reconstructions of training images, so that no prior can be expected to do better,
    and the copy rate counts.
    """

    kind = "aggregated"

    def __init__(self, codes: int = 50_000, seed: int = 0) -> None:
        super().__init__(codes, seed)

    @property
    def settings(self) -> Mapping[str, Any]:
        """None of its own."""
        return {}

    def fit(self, codes: Tensor, generator: torch.Generator) -> None:
        """Keep the codes."""
        self.tensors = {"codes": codes.clone()}

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw codes, without replacement as long as there are any left."""
        codes = self.fitted["codes"]
        rounds = [
            torch.randperm(len(codes), generator=generator) for _ in range(-(-n // len(codes)))
        ]
        return codes[torch.cat(rounds)[:n]]
