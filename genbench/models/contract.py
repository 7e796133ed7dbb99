"""What a model must offer to be trained, sampled and scored; it knows nothing of who does that.

Images are float tensors (N, C, H, W) with values in [-1, 1].
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genbench.data.contract import ImageData
from genbench.losses.likelihood import Likelihood
from genbench.models.condition import Condition
from genbench.models.symptoms import Symptom

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Player(NamedTuple):
    """Modules that one optimizer moves."""

    modules: Sequence[nn.Module]
    optimizer: MakeOptimizer
    # settings of the optimizer that change with the share of the budget that is done, 0 to 1, but its
    # learning rate: that is the schedule's
    changes: Callable[[float], Mapping[str, Any]] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter of the player, once."""
        return [p for module in self.modules for p in module.parameters()]


class Move(NamedTuple):
    """One player's turn in a step: it descends `loss()`, a mean over images, all others frozen."""

    player: str
    loss: Callable[[], Tensor]


class GenerativeModel(nn.Module, ABC):
    """A model that can be sampled; the moves that its `step` yields are what trains it.

    A subclass writes `players`, `step` and `sample`, and where it can what the protocols below name. One
    that can be told labels takes them as a further argument of `step`, `sample`, and all that encodes or
    decodes: `labels: Tensor | None = None`, see `genbench.networks.conditional`. It gets them under
    `arena.condition` alone.
    """

    counted: ClassVar[str] = ""  # the player that owns the decoder: its moves are the run's steps
    decoder: nn.Module  # latents to raw images; only untrained models have none
    latent_dim: int
    discriminator_steps: int = 1  # `step` gets this many batches in one, each for a move of its own
    has_gradient_penalty: bool = False  # a loss contains a gradient, which torch.compile cannot do
    compares_images: ClassVar[bool] = False  # a move is no mean over images: its batch stays whole
    condition: Condition | None = None  # the labels that it knows; given by who makes it
    loss_networks: Mapping[str, str] = MappingProxyType({})  # fixed ones in losses, name to sha256

    def __init__(self) -> None:
        super().__init__()
        self.draws, self.track = Draws(), untracked  # replaced while the model is in training
        self.progress = torch.zeros(())  # share of the budget before this step, where the model is

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """Who moves, by name; empty for a model that is not trained."""

    @abstractmethod
    def step(self, images: Tensor) -> Iterator[Move]:
        """Yield the moves of one training step on `images`, in order; each is made before the next."""

    @abstractmethod
    def sample(self, z: Tensor) -> Tensor:
        """Turn latents, as drawn by `latents`, into images."""

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` latents on the CPU from the prior that it trains under, N(0, I).

        A model that trains under another one overrides this. Fitted priors (genbench.priors) take its
        place while a trained model is scored, and never while it trains.
        """
        return torch.randn(n, self.latent_dim, generator=generator)

    def observe(self, data: ImageData) -> None:  # noqa: B027
        """Look at the data before training; only the known-answer models do."""

    def objective(self) -> str:
        """What is minimised, in a line for the terminal; empty: nothing is printed."""
        return ""

    def symptoms(self) -> Sequence[Symptom]:
        """Signs by which a failing training is known, of what `step` tracks."""
        return ()

    def noise(self, n: int, *shape: int) -> Tensor:
        """Draw N(0, 1), (n, *shape), for a training step; use it instead of torch.randn."""
        return self.draws(torch.randn, n, shape)

    def uniform(self, n: int, *shape: int) -> Tensor:
        """Draw U(0, 1), (n, *shape), for a training step."""
        return self.draws(torch.rand, n, shape)

    @property
    def device(self) -> torch.device:
        """Where its parameters are; the CPU if it has none."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))


def draws_standard_normal(model: GenerativeModel) -> bool:
    """Whether the prior that the model trains under is N(0, I): another one overrides `latents`."""
    return type(model).latents is GenerativeModel.latents


def untracked(name: str, value: Tensor) -> None:
    """Track a scalar by its name: during training its mean goes to the history and the loggers."""


class Draws:
    """The randomness of training steps: it depends on (seed, step) alone.

    So neither resuming, logging, evaluating nor the number of devices changes a run. Every draw is
    made for all images of a step, and this process takes its share of the rows.
    """

    def __init__(self, seed: int = 0, device: torch.device | None = None) -> None:
        self.seed, self.device = seed, device or torch.device("cpu")
        self.generator = torch.Generator(self.device)
        self.share, self.shares = 0, 1  # of the rows: by DDP rank, and by part of an accumulation
        self.begin(0)

    def begin(self, step: int) -> None:
        """Seed for a step."""
        self.generator.manual_seed((self.seed * 1_000_003 + step) * 4_099 % 2**63)

    def __call__(self, draw: Callable[..., Tensor], n: int, shape: Sequence[int]) -> Tensor:
        """`n` rows of `draw`: torch.randn or torch.rand."""
        rows = draw(n * self.shares, *shape, generator=self.generator, device=self.device)
        return rows[self.share * n : (self.share + 1) * n]


class Elbo(NamedTuple):
    """The two halves of the evidence lower bound in nats, (N,) each; elbo = -(rate + distortion)."""

    rate: Tensor
    distortion: Tensor


@runtime_checkable
class Reconstructs(Protocol):
    """A model with an encoder."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode to the posterior mean and decode: (N, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """A model whose encoder gives one latent for an image, and no distribution."""

    def encode(self, images: Tensor) -> Tensor:
        """The latents of images, (N, latent_dim)."""
        ...


@runtime_checkable
class HasPosterior(Protocol):
    """A model whose encoder gives a distribution of latents."""

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | images), (N, latent_dim) each."""
        ...


class Drawn(NamedTuple):
    """Latents drawn from q(z | images), and what bounds need of the draw, in nats."""

    z: Tensor  # (N, latent_dim)
    rate: Tensor  # KL(q(z | images) || p(z)), or an unbiased estimate of it, (N,)
    log_ratio: Tensor  # log p(z) - log q(z | images), (N,)


@runtime_checkable
class DrawsPosterior(Protocol):
    """A model whose posterior of all latents is no diagonal Gaussian: it has no mean and variance to give."""

    def draw_posterior(self, images: Tensor, noise: Tensor) -> Drawn:
        """Draw one z for each image by N(0, 1) `noise` (N, latent_dim)."""
        ...

    def log_prob(self, images: Tensor, z: Tensor) -> Tensor:
        """Log p(images | z), in nats per image, (N,)."""
        ...


@runtime_checkable
class HasTokens(Protocol):
    """A model whose latents are T tokens side by side, each one of K vectors: a quantised autoencoder."""

    @property
    def alphabet(self) -> Tensor:
        """The latents of each token, (K, latent_dim / T)."""
        ...

    def tokens(self, images: Tensor) -> Tensor:
        """Numbers 0 .. K - 1 of the tokens of images, (N, T)."""
        ...


@runtime_checkable
class Integrates(Protocol):
    """A model that makes a sample by many evaluations of a network: any number of them, from 1 on."""

    evaluations: int


@runtime_checkable
class HasLogDensity(Protocol):
    """A model that gives the density of any image by integrating back to its latent."""

    def log_density(self, images: Tensor, evaluations: int) -> Tensor:
        """log p(images) in nats, (N,), as a density over values in [-1, 1], in so many evaluations."""
        ...


@runtime_checkable
class DrawsPixels(Protocol):
    """A model whose images are drawn from p(x | z), of which `sample` gives the mean."""

    def draw(self, z: Tensor, uniform: Tensor) -> Tensor:
        """Images (N, C, H, W) for latents (N, ...), by the inverse CDF at `uniform` in (0, 1)."""
        ...


@runtime_checkable
class HasBound(Protocol):
    """A model whose objective bounds log p(x), whatever its posterior is: Gaussian, or all on one code."""

    # for type checkers: from Python 3.12 on isinstance does not see what nn.Module keeps in a dict of its own
    if TYPE_CHECKING:
        likelihood: Likelihood

    def elbo(self, images: Tensor, noise: Tensor) -> Elbo:
        """Bound log p(images) at beta = 1, with posterior draws from `noise` (N, latent_dim)."""
        ...


@runtime_checkable
class HasLikelihood(HasPosterior, HasBound, Protocol):
    """Such a model with a Gaussian posterior, of which it gives p(x | z) too."""

    def log_prob(self, images: Tensor, z: Tensor) -> Tensor:
        """Log p(images | z), in nats per image, (N,)."""
        ...
