"""Annealed importance sampling of log p(x) under a decoder, from below and from above.

Wu, Burda, Salakhutdinov and Grosse 2017, https://arxiv.org/abs/1611.04273: p(x | z) is a Gaussian
around the decoder's image, p(z) the prior, and log p(x) is estimated by chains that Hamiltonian Monte
Carlo moves from the prior to the posterior (Neal 2001). This underestimates log p(x) on average. For
images simulated by the model itself an exact posterior sample is known, so that chains can also run
backwards, which overestimates it (BDMC: Grosse, Ghahramani and Adams 2015).

Step sizes come from a pilot run and are then frozen: adapting them while weights are collected, as
the paper's code does, would void the bounds.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

STEEPNESS = 4.0  # of the sigmoid schedule of inverse temperatures

ACCEPTANCE = 0.65  # target acceptance rate of the pilot run

FIRST_STEP, LEAST_STEP, LARGEST_STEP = 0.1, 1e-4, 0.5  # step sizes of the leapfrog integrator

GAIN = 0.1  # change of the pilot's log step size per unit of acceptance

FIT_ROUNDS = 100  # EM rounds of the variance, after as many temperatures that anneal the chains

FIT_CHAINS = 4  # chains per image in that fit

FIRST_VARIANCE, LEAST_VARIANCE = 0.1, 1e-5  # of pixels in [0, 1]: start and lower bound of the fit

# from latents (B, d) to mean images (B, D) in [0, 1]; differentiable
Decode = Callable[[Tensor], Tensor]


class StandardNormal:
    """N(0, I) as what chains start from: up to constants, -log p(z) and its gradient."""

    def energy(self, z: Tensor) -> Tensor:
        """-log p(z) of latents (B, d) without its constant, doubled: (B,)."""
        return z.square().sum(1)

    def slope(self, z: Tensor) -> Tensor:
        """Gradient of -log p(z), (B, d)."""
        return z

    def draw(self, n: int, dimensions: int, generator: torch.Generator) -> Tensor:
        """Draw latents (n, d) on the CPU."""
        return torch.randn(n, dimensions, generator=generator)


class FromDensity(StandardNormal):
    """Any other prior, by its density and its draws."""

    def __init__(
        self,
        log_prob: Callable[[Tensor], Tensor],
        draw: Callable[[int, torch.Generator], Tensor],
    ) -> None:
        self.log_prob, self.drawn = log_prob, draw

    def energy(self, z: Tensor) -> Tensor:
        """-2 log p(z), (B,)."""
        return -2 * self.log_prob(z).to(z.dtype)

    def slope(self, z: Tensor) -> Tensor:
        """By differentiation; 0 where the density is 0, from where a move is rejected anyway."""
        with torch.enable_grad():
            point = z.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(-self.log_prob(point).sum(), point)
        return slope.nan_to_num(0.0)

    def draw(self, n: int, dimensions: int, generator: torch.Generator) -> Tensor:
        """Draw latents (n, d) on the CPU."""
        return self.drawn(n, generator)


NORMAL = StandardNormal()


class Chains:
    """M chains for each of N images: latents (M N, d) in chain-major order, and their likelihoods.

    `generator` is on the CPU, so that draws are the same on every device. `decoded_at_once` bounds
    memory.
    """

    def __init__(
        self,
        decode: Decode,
        images: Tensor,
        z: Tensor,
        variance: float,
        *,
        leapfrogs: int,
        generator: torch.Generator,
        decoded_at_once: int,
        prior: StandardNormal = NORMAL,
    ) -> None:
        self.prior = prior
        self.decode, self.variance, self.leapfrogs = decode, variance, leapfrogs
        self.generator, self.decoded_at_once = generator, decoded_at_once
        self.count, self.each = len(images), len(z) // len(images)
        self.images, self.z = images.repeat(self.each, 1), z
        self.error, self.slope = self._evaluate(z)

    def log_prob(self) -> Tensor:
        """log p(x | z) of each chain, float64 (M N,)."""
        constant = self.images.shape[1] * math.log(2 * math.pi * self.variance)
        return -0.5 * (self.error.double() / self.variance + constant)

    def move(self, beta: float, step: Tensor) -> Tensor:
        """One step of Hamiltonian Monte Carlo that leaves p(z) p(x | z)^beta invariant: Neal 2011.

        `step` (N,) has the step size of each image's chains. Returns acceptance probabilities (M, N).
        """
        scale = 0.5 * beta / self.variance
        size = step.repeat(self.each).unsqueeze(1)
        momentum = torch.randn(self.z.shape, generator=self.generator).to(self.z.device)
        chance = torch.rand(len(self.z), generator=self.generator).to(self.z.device)
        before = self._energy(self.z, self.error, momentum, scale)
        z, error, slope = self.z, self.error, self.slope
        for _ in range(self.leapfrogs):
            momentum = momentum - 0.5 * size * (self.prior.slope(z) + scale * slope)
            z = z + size * momentum
            error, slope = self._evaluate(z)
            momentum = momentum - 0.5 * size * (self.prior.slope(z) + scale * slope)
        gain = before - self._energy(z, error, momentum, scale)
        probability = gain.clamp_max(0).exp().nan_to_num(0.0)
        taken = chance < probability
        self.z = torch.where(taken[:, None], z, self.z)
        self.slope = torch.where(taken[:, None], slope, self.slope)
        self.error = torch.where(taken, error, self.error)
        return probability.view(self.each, self.count)

    def _energy(self, z: Tensor, error: Tensor, momentum: Tensor, scale: float) -> Tensor:
        return scale * error + 0.5 * (self.prior.energy(z) + momentum.square().sum(1))

    def _evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """|x - decode(z)|^2, (B,), and its gradient with respect to z, (B, d)."""
        errors, slopes = [], []
        for some, images in zip(
            torch.split(z, self.decoded_at_once),
            torch.split(self.images, self.decoded_at_once),
            strict=True,
        ):
            with torch.enable_grad():
                point = some.detach().requires_grad_(True)
                error = (images - self.decode(point)).square().sum(1)
                (slope,) = torch.autograd.grad(error.sum(), point)
            errors.append(error.detach())
            slopes.append(slope)
        return torch.cat(errors), torch.cat(slopes)


def schedule(temperatures: int) -> list[float]:
    """Inverse temperatures from 0 to 1: sigmoid(4 (2 t / T - 1)) for T temperatures, rescaled."""
    t = torch.linspace(-STEEPNESS, STEEPNESS, temperatures, dtype=torch.float64).sigmoid()
    betas: list[float] = ((t - t[0]) / (t[-1] - t[0])).tolist()
    return betas


def find_steps(chains: Chains, betas: list[float], on_move: Callable[[], None]) -> Tensor:
    """Step sizes (T, N) for each temperature and image, adapted in a pilot run along `betas`.

    `on_move` is called after every move, here and below.
    """
    step = torch.full((chains.count,), FIRST_STEP, device=chains.z.device)
    path = [step]
    for beta in betas[1:]:
        acceptance = chains.move(beta, step).mean(0)
        step = (step * (GAIN * (acceptance - ACCEPTANCE)).exp()).clamp(LEAST_STEP, LARGEST_STEP)
        path.append(step)
        on_move()
    return torch.stack(path)


def anneal(
    chains: Chains, betas: list[float], steps: Tensor, on_move: Callable[[], None]
) -> Tensor:
    """Log importance weights, float64 (M, N), of chains moved along `betas` with fixed `steps` (T, N).

    From the prior (betas 0 to 1) a weight's expectation is p(x); from the posterior (1 to 0), 1 / p(x).
    """
    weights = torch.zeros(len(chains.z), dtype=torch.float64, device=chains.z.device)
    for (before, beta), step in zip(pairwise(betas), steps[1:], strict=True):
        weights += (beta - before) * chains.log_prob()
        chains.move(beta, step)
        on_move()
    return weights.view(chains.each, chains.count)


def mean_in_logs(log_weights: Tensor) -> Tensor:
    """Log of the mean weight over chains: (M, N) to (N,)."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


class Annealer(NamedTuple):
    """A model's decoder and observation variance, with the settings of the annealing."""

    decode: Decode
    latent_dim: int
    variance: float
    leapfrogs: int
    betas: list[float]
    chains: int
    pilot_chains: int
    decoded_at_once: int
    device: torch.device
    on_move: Callable[[], None]
    latents: StandardNormal = NORMAL  # what they are drawn from

    def start(self, images: Tensor, z: Tensor, generator: torch.Generator) -> Chains:
        """Chains that start at latents (M N, d)."""
        return Chains(
            self.decode,
            images,
            z,
            self.variance,
            leapfrogs=self.leapfrogs,
            generator=generator,
            decoded_at_once=self.decoded_at_once,
            prior=self.latents,
        )

    def prior(self, images: Tensor, each: int, generator: torch.Generator) -> Chains:
        """Chains that start at draws from the prior, `each` per image."""
        z = self.latents.draw(each * len(images), self.latent_dim, generator)
        return self.start(images, z.to(self.device), generator)

    def steps(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Step sizes (T, N) for images (N, D), by a pilot run."""
        return find_steps(
            self.prior(images, self.pilot_chains, generator), self.betas, self.on_move
        )

    def forward(self, images: Tensor, steps: Tensor, generator: torch.Generator) -> Tensor:
        """Lower estimate of log p(x), (N,)."""
        chains = self.prior(images, self.chains, generator)
        return mean_in_logs(anneal(chains, self.betas, steps, self.on_move))

    def backward(
        self, images: Tensor, z: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Upper estimate of log p(x), (N,), from exact posterior samples z (N, d)."""
        chains = self.start(images, z.repeat(self.chains, 1), generator)
        weights = anneal(chains, self.betas[::-1], steps.flip(0), self.on_move)
        return -mean_in_logs(weights)


def simulate(annealer: Annealer, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw latents (N, d) from the prior, and images (N, D) from p(x | z), noise included."""
    z = annealer.latents.draw(count, annealer.latent_dim, generator).to(annealer.device)
    with torch.no_grad():
        images = annealer.decode(z)
    noise = torch.randn(images.shape, generator=generator).to(annealer.device)
    return z, images + math.sqrt(annealer.variance) * noise


def fit_variance(annealer: Annealer, images: Tensor, generator: torch.Generator) -> float:
    """Fit the variance to images (N, D) by EM, with annealed chains as the E step.

    Mean of the last half of the rounds. Any variance gives a valid likelihood, so that an imprecise
    fit costs tightness, not correctness.
    """
    start = annealer._replace(variance=FIRST_VARIANCE, betas=schedule(FIT_ROUNDS))
    chains = start.prior(images, FIT_CHAINS, generator)
    step = torch.full((chains.count,), FIRST_STEP, device=chains.z.device)
    weights = torch.zeros(FIT_CHAINS, chains.count, dtype=torch.float64, device=chains.z.device)
    found: list[float] = []
    for round_ in range(2 * FIT_ROUNDS):
        beta = 1.0
        if round_ < FIT_ROUNDS - 1:
            before, beta = start.betas[round_ : round_ + 2]
            weights += (beta - before) * chains.log_prob().view_as(weights)
        acceptance = chains.move(beta, step).mean(0)
        step = (step * (GAIN * (acceptance - ACCEPTANCE)).exp()).clamp(LEAST_STEP, LARGEST_STEP)
        if round_ >= FIT_ROUNDS:
            error = (weights.softmax(0) * chains.error.double().view_as(weights)).sum(0).mean()
            chains.variance = max(LEAST_VARIANCE, float(error) / images.shape[1])
            found.append(chains.variance)
        annealer.on_move()
    later = found[len(found) // 2 :]
    return sum(later) / len(later)
