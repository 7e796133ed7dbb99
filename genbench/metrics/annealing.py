"""Annealed importance sampling of log p(x) under a decoder, from below and from above.

Wu, Burda, Salakhutdinov and Grosse 2017, https://arxiv.org/abs/1611.04273: p(x | z) is a Gaussian
around the decoder's image, p(z) the prior, and log p(x) is estimated by moving chains from the prior
to the posterior by Hamiltonian Monte Carlo (Neal 2001). Such an estimate is too low on average. On
images simulated by the model itself, of which one exact posterior sample is known, chains also run
backwards and give an estimate that is too high (BDMC: Grosse, Ghahramani and Adams 2015).

Step sizes come from a pilot run and are then frozen: adapting them while weights are collected, as
the paper's code does, would void the bounds.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

STEEPNESS = 4.0  # of the sigmoid schedule


ACCEPTANCE = 0.65  # that the pilot aims at


FIRST_STEP, LEAST_STEP, LARGEST_STEP = 0.1, 1e-4, 0.5


GAIN = 0.1  # of the pilot's log step size, per unit of acceptance


FIT_ROUNDS = 100  # of the search for the variance, after as many temperatures


FIT_CHAINS = 4


FIRST_VARIANCE, LEAST_VARIANCE = 0.1, 1e-5


Decode = Callable[
    [Tensor], Tensor
]  # latents (B, d) to mean images (B, D) in [0, 1], differentiable


class Chains:
    """M chains for each of N images: latents (M N, d), chain by chain, and where they stand.

    `generator` is on the CPU, so that every device draws the same. `decoded_at_once` bounds memory.
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
    ) -> None:
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
        """Move by Hamiltonian Monte Carlo, leaving p(z) p(x | z)^beta invariant: Neal 2011.

        `step` (N,) holds the step size of each image's chains. Returns acceptance probabilities (M, N).
        """
        scale = 0.5 * beta / self.variance
        size = step.repeat(self.each).unsqueeze(1)
        momentum = torch.randn(self.z.shape, generator=self.generator).to(self.z.device)
        chance = torch.rand(len(self.z), generator=self.generator).to(self.z.device)
        before = self._energy(self.z, self.error, momentum, scale)
        z, error, slope = self.z, self.error, self.slope
        for _ in range(self.leapfrogs):
            momentum = momentum - 0.5 * size * (z + scale * slope)
            z = z + size * momentum
            error, slope = self._evaluate(z)
            momentum = momentum - 0.5 * size * (z + scale * slope)
        gain = before - self._energy(z, error, momentum, scale)
        probability = gain.clamp_max(0).exp().nan_to_num(0.0)
        taken = chance < probability
        self.z = torch.where(taken[:, None], z, self.z)
        self.slope = torch.where(taken[:, None], slope, self.slope)
        self.error = torch.where(taken, error, self.error)
        return probability.view(self.each, self.count)

    def _energy(self, z: Tensor, error: Tensor, momentum: Tensor, scale: float) -> Tensor:
        return scale * error + 0.5 * (z.square().sum(1) + momentum.square().sum(1))

    def _evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """|x - decode(z)|^2 (B,) and its gradient by z (B, d)."""
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
    """Inverse temperatures from 0 to 1: sigmoid(4 (2 t / T - 1)), rescaled."""
    t = torch.linspace(-STEEPNESS, STEEPNESS, temperatures, dtype=torch.float64).sigmoid()
    betas: list[float] = ((t - t[0]) / (t[-1] - t[0])).tolist()
    return betas


def find_steps(chains: Chains, betas: list[float], tell: Callable[[], None]) -> Tensor:
    """Run a pilot from prior to posterior that adapts step sizes: (T, N), one path for each image."""
    step = torch.full((chains.count,), FIRST_STEP, device=chains.z.device)
    path = [step]
    for beta in betas[1:]:
        acceptance = chains.move(beta, step).mean(0)
        step = (step * (GAIN * (acceptance - ACCEPTANCE)).exp()).clamp(LEAST_STEP, LARGEST_STEP)
        path.append(step)
        tell()
    return torch.stack(path)


def anneal(chains: Chains, betas: list[float], steps: Tensor, tell: Callable[[], None]) -> Tensor:
    """Move through `betas`, with frozen steps (T, N); log weights, float64 (M, N).

    From the prior, 0 to 1, a weight's mean is p(x); from the posterior, 1 to 0, it is 1 / p(x).
    """
    weights = torch.zeros(len(chains.z), dtype=torch.float64, device=chains.z.device)
    for (before, beta), step in zip(pairwise(betas), steps[1:], strict=True):
        weights += (beta - before) * chains.log_prob()
        chains.move(beta, step)
        tell()
    return weights.view(chains.each, chains.count)


def mean_in_logs(log_weights: Tensor) -> Tensor:
    """log of the mean over chains: (M, N) to (N,)."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


class Setting(NamedTuple):
    """One model's side of it: how it decodes, what it observes with, and what bounds the work."""

    decode: Decode
    latent_dim: int
    variance: float
    leapfrogs: int
    betas: list[float]
    chains: int
    pilot_chains: int
    decoded_at_once: int
    device: torch.device
    tell: Callable[[], None]

    def start(self, images: Tensor, z: Tensor, generator: torch.Generator) -> Chains:
        """Put chains at latents (M N, d)."""
        return Chains(
            self.decode,
            images,
            z,
            self.variance,
            leapfrogs=self.leapfrogs,
            generator=generator,
            decoded_at_once=self.decoded_at_once,
        )

    def prior(self, images: Tensor, each: int, generator: torch.Generator) -> Chains:
        """Put `each` chains per image at draws from the prior."""
        z = torch.randn(each * len(images), self.latent_dim, generator=generator)
        return self.start(images, z.to(self.device), generator)

    def steps(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Find the step sizes for images (N, D)."""
        return find_steps(self.prior(images, self.pilot_chains, generator), self.betas, self.tell)

    def forward(self, images: Tensor, steps: Tensor, generator: torch.Generator) -> Tensor:
        """Estimate log p(x) from below, (N,)."""
        chains = self.prior(images, self.chains, generator)
        return mean_in_logs(anneal(chains, self.betas, steps, self.tell))

    def backward(
        self, images: Tensor, z: Tensor, steps: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Estimate log p(x) from above, (N,), z (N, d) being exact posterior samples."""
        chains = self.start(images, z.repeat(self.chains, 1), generator)
        weights = anneal(chains, self.betas[::-1], steps.flip(0), self.tell)
        return -mean_in_logs(weights)


def simulate(setting: Setting, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw latents (N, d) from the prior and images (N, D) of them from the model, noise included."""
    z = torch.randn(count, setting.latent_dim, generator=generator).to(setting.device)
    with torch.no_grad():
        images = setting.decode(z)
    noise = torch.randn(images.shape, generator=generator).to(setting.device)
    return z, images + math.sqrt(setting.variance) * noise


def fit_variance(setting: Setting, images: Tensor, generator: torch.Generator) -> float:
    """Find the variance under which images (N, D) are most likely, by EM with chains as its E step.

    Whatever it finds is a likelihood; a better one is only a better choice.
    """
    start = setting._replace(variance=FIRST_VARIANCE, betas=schedule(FIT_ROUNDS))
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
        setting.tell()
    later = found[len(found) // 2 :]
    return sum(later) / len(later)
