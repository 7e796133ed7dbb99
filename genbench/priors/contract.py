"""What a prior must offer. It is fitted after training, to the codes of training images.

Codes are draws from q(z | x), (N, d) float32 on the CPU: the draws of one image stand together, and the
images are in random order.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from genbench.errors import UserMistake
from genbench.ranges import whole


class CannotBeFitted(UserMistake):
    """These codes have no such prior."""


class Prior(ABC):
    """A distribution of latents; `tensors` is all that `draw` needs, and what is kept on disk.

    `codes` is the number of codes that it is fitted to, `seed` that of its own chance.
    """

    kind: ClassVar[str]  # the name of its option in configs/prior
    version: ClassVar[int] = 1  # of its definition; goes into the cards of scores
    needs_codes: ClassVar[bool] = (
        True  # False: it is fitted to none, and models without encoder have it
    )
    needs_tokens: ClassVar[bool] = False  # its codes are spelled in a model's `alphabet`
    alphabet: Tensor | None = None  # (K, d / T), set before the fit where it needs tokens

    def __init__(self, codes: int, seed: int) -> None:
        if self.needs_codes:
            whole(f"prior.{self.kind}.codes", codes, 2)
        whole(f"prior.{self.kind}.seed", seed, 0)
        self.codes, self.seed = codes, seed
        self.tensors: dict[str, Tensor] = {}
        self.found: dict[str, Any] = {}  # what the fit chose, for its card

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """The constructor's other arguments, as plain types: part of the protocol of every score."""

    @abstractmethod
    def fit(self, codes: Tensor, generator: torch.Generator) -> None:
        """Fit to codes (N, d); where none are needed N is 0, and d alone counts."""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw latents (n, d), float32 on the CPU; the same ones in every process."""

    @property
    def parameters(self) -> int:
        """Numbers that the fit has found."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def check(self, codes: int) -> None:  # noqa: B027
        """Refuse what cannot be fitted to so many codes. Raises UserMistake."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What the constructor takes to make such a prior again."""
        chance = {"codes": self.codes, "seed": self.seed} if self.needs_codes else {}
        return {**self.settings, **chance}

    @property
    def fitted(self) -> Mapping[str, Tensor]:
        """Its tensors. Raises UserMistake unless it was fitted."""
        if not self.tensors:
            raise UserMistake(
                f"the {self.kind} prior was not fitted: a prior is fitted after training, to one checkpoint"
            )
        return self.tensors


@runtime_checkable
class WeighsTokens(Protocol):
    """A prior over tokens, of which bounds on log p(x) take the rate."""

    def log_p(self, tokens: Tensor) -> Tensor:
        """log p(tokens) in nats, (N,), of numbers (N, T) on any device."""
        ...


@runtime_checkable
class HasDensity(Protocol):
    """A prior whose density is at hand, as annealed importance sampling needs it."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of latents (N, d) on any device, (N,); differentiable where it is finite."""
        ...


@contextmanager
def one_thread() -> Iterator[None]:
    """Within: sums are taken in one order, so that every process and machine load gives the same ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
