"""What an encoder's latents carry: active units, and the two terms of the rate.

The codes of N images are the posteriors q(z | x_n), diagonal Gaussians. Hoffman and Johnson 2016, "ELBO
surgery", take their mean KL to the prior apart: the mutual information of image and code, and the KL of
the aggregate posterior q(z) = 1/N sum_n q(z | x_n) to the prior. All in nats, float64.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from genbench.losses.variational import reparameterize
from genbench.models.contract import HasPosterior

ACTIVE = 0.01  # variance of a unit's posterior mean over images, above which it is active

ROWS = 512  # codes that are held against all posteriors at a time


class Surgery(NamedTuple):
    """Per image, (N,): the rate KL(q(z | x) || p(z)), and an estimate of log q(z | x) / q(z)."""

    rate: Tensor
    information: Tensor

    @property
    def marginal(self) -> Tensor:
        """What is left of the rate, (N,): its mean estimates KL(q(z) || p(z))."""
        return self.rate - self.information


def variances_of_means(mu: Tensor) -> Tensor:
    """The variance over images of each unit's posterior mean: (N, d) to (d,)."""
    return mu.double().var(dim=0)


def active_units(mu: Tensor) -> int:
    """Units whose posterior mean varies over images by more than 0.01: Burda et al. 2016, section 5.2."""
    return int((variances_of_means(mu) > ACTIVE).sum())


def rate_by_unit(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL of each unit's posterior to N(0, 1), mean over images: (N, d) to (d,)."""
    mu, logvar = mu.double(), logvar.double()
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)


def surgery(mu: Tensor, logvar: Tensor, noise: Tensor) -> Surgery:
    """Both terms from the posteriors of N images (N, d), by the draws from `noise` (S, N, d).

    The rate is exact. The information is log q(z | x) - log q(z) at z ~ q(z | x), with the exact mixture
    q(z) of these N posteriors, mean over S draws: each one is at most log N, whatever the encoder knows.
    """
    mu, logvar = mu.double(), logvar.double()
    rate = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
    information = torch.zeros_like(rate)
    for one in noise:
        information += _log_ratio(one.double(), mu, logvar)
    return Surgery(rate, information / len(noise))


def _log_ratio(noise: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log q(z_n | x_n) - log 1/N sum_m q(z_n | x_m) at z by `noise`, (N,), a block of rows at a time."""
    z = reparameterize(mu, logvar, noise)
    precision, widths = (-logvar).exp(), logvar.sum(1)
    constant = (mu.square() * precision).sum(1) + widths
    exact = noise.square().sum(1) + widths  # of its own posterior
    found = []
    for start in range(0, len(z), ROWS):
        rows, own = z[start : start + ROWS], exact[start : start + ROWS]
        # -2 log q(z_n | x_m) without the constant that all share. Where posteriors are far narrower than they
        # are apart its terms cancel to noise: no square is below 0, and one's own is known
        twice = rows.square() @ precision.T - 2 * rows @ (mu * precision).T + constant
        twice = torch.maximum(twice, widths)
        twice.diagonal(start).copy_(own)
        found.append(math.log(len(z)) - 0.5 * own - torch.logsumexp(-0.5 * twice, 1))
    return torch.cat(found)


def nearest_others(codes: Tensor) -> Tensor:
    """The number of each code's nearest other one, by Euclidean distance: (N, d) to (N,); N of 2 or more."""
    found = []
    for start in range(0, len(codes), ROWS):
        apart = torch.cdist(codes[start : start + ROWS].double(), codes.double())
        apart.diagonal(start).fill_(math.inf)
        found.append(apart.argmin(1))
    return torch.cat(found)


def midpoints(codes: Tensor) -> Tensor:
    """Each code's midpoint to its nearest other one: (N, d)."""
    return (codes + codes[nearest_others(codes)]) / 2


def in_words(model: HasPosterior, images: Tensor, at_once: int, *labels: Tensor) -> str:
    """What the latents of some images carry, in a few words; empty if a posterior is NaN or infinite.

    `labels` are those of the images, for a model that knows them.
    """
    pieces = zip(*(torch.split(one, at_once) for one in (images, *labels)), strict=True)
    parts = [model.posterior(*piece) for piece in pieces]
    mu, logvar = (torch.cat(own).double().cpu() for own in zip(*parts, strict=True))
    if not bool((mu.isfinite() & logvar.isfinite()).all()):
        return ""
    noise = torch.randn(1, *mu.shape, generator=torch.Generator().manual_seed(0))
    nats = max(0.0, round(float(surgery(mu, logvar, noise).information.mean()), 9))
    return (
        f"{active_units(mu)} of {mu.shape[1]} latents are active, with {nats:.2g} of at most "
        f"{math.log(len(mu)):.2g} nats of information on which image it was"
    )
