"""Bounds on log p(x) from a posterior and an observation model, in nats per image, at beta = 1."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.losses.variational import kl_to_standard_normal, reparameterize
from genbench.models.contract import Drawn, DrawsPosterior, Elbo, HasBound, HasLikelihood


class Bound(NamedTuple):
    """Rate and distortion of each image, float64 (N,) in nats: log p(x) >= -(rate + distortion)."""

    rate: Tensor
    distortion: Tensor


class Observer(NamedTuple):
    """The encoder and the observation model of a bound."""

    posterior: Callable[..., tuple[Tensor, Tensor]]  # of images; mean and log variance, (N, d) each
    log_prob: Callable[..., Tensor]  # log p(images | z), (N,), of images and z

    def told(self, *labels: Tensor) -> "Observer":
        """The same for images with these labels (N, ...), or for the batch repeated; itself without any."""
        if not labels:
            return self
        return Observer(_told(self.posterior, *labels), _told(self.log_prob, *labels))


class DrawnObserver(NamedTuple):
    """The same of a posterior without mean and variance: it gives draws, or the bound alone."""

    elbo: Callable[..., Elbo]  # of images at noise (N, d)
    draw: Callable[..., Drawn] | None = None  # a posterior on one code needs no draws
    log_prob: Callable[..., Tensor] | None = None

    def told(self, *labels: Tensor) -> "DrawnObserver":
        """As an observer's."""
        if not labels:
            return self
        return DrawnObserver(
            _told(self.elbo, *labels),
            self.draw and _told(self.draw, *labels),
            self.log_prob and _told(self.log_prob, *labels),
        )


def _told(call: Callable[..., Any], labels: Tensor) -> Callable[..., Any]:
    """A function of images, and of more, that is given their labels too."""

    def of(images: Tensor, *more: Tensor) -> Any:
        own = labels.repeat(len(images) // len(labels), *[1] * (labels.ndim - 1))
        return call(images, *more, own)

    return of


def elbo(observer: Observer | DrawnObserver, images: Tensor, noise: Tensor) -> Bound:
    """Rate and distortion of images (N, C, H, W), averaged over draws (S, N, d).

    The rate of a Gaussian posterior is exact, and takes no draws.
    """
    if isinstance(observer, DrawnObserver):
        each = [torch.stack(observer.elbo(images, one)).double() for one in noise]
        return Bound(*torch.stack(each).mean(0))
    mu, logvar = observer.posterior(images)
    distortion = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for one in noise:
        distortion -= observer.log_prob(images, reparameterize(mu, logvar, one)).double()
    return Bound(kl_to_standard_normal(mu, logvar).double(), distortion / len(noise))


def importance_bound(
    observer: Observer | DrawnObserver, images: Tensor, noise: Tensor, decoded_at_once: int
) -> Tensor:
    """log 1/k sum_k p(x, z_k) / q(z_k | x), Burda et al. 2016, eq. 8: float64 (N,).

    `noise` (k, N, d) has the k draws of each image. At most about `decoded_at_once` images are
    decoded at a time; this does not change the result beyond rounding.
    """
    weights = _log_weights(observer, images)
    total = torch.full((len(images),), -math.inf, dtype=torch.float64, device=images.device)
    for part in torch.split(noise, max(1, decoded_at_once // len(images))):
        total = torch.logaddexp(total, torch.logsumexp(weights(part), 0))
    return total - math.log(len(noise))


def _log_weights(observer: Observer | DrawnObserver, images: Tensor) -> Callable[[Tensor], Tensor]:
    """log p(x, z) - log q(z | x), float64 (k, N), as a function of noise (k, N, d)."""
    if isinstance(observer, DrawnObserver):
        draw, log_prob = observer.draw, observer.log_prob
        assert draw is not None and log_prob is not None

        def of_draws(noise: Tensor) -> Tensor:
            copies = images.repeat(len(noise), 1, 1, 1)
            drawn = draw(copies, noise.flatten(0, 1))
            log_weights = log_prob(copies, drawn.z).double() + drawn.log_ratio.double()
            return log_weights.view(len(noise), -1)

        return of_draws
    mu, logvar = (part.double() for part in observer.posterior(images))
    decode = observer.log_prob

    def of_gaussian(noise: Tensor) -> Tensor:
        z = reparameterize(mu, logvar, noise.double())
        # the constants of the two densities cancel
        log_ratio = 0.5 * (noise.double().square() + logvar - z.square()).sum(-1)
        found = decode(images.repeat(len(noise), 1, 1, 1), z.flatten(0, 1).float())
        return found.double().view(len(noise), -1) + log_ratio

    return of_gaussian


def own_observer(model: HasBound) -> Observer | DrawnObserver:
    """The bound of a model with a likelihood of its own."""
    if isinstance(model, HasLikelihood):
        return Observer(model.posterior, model.log_prob)
    if isinstance(model, DrawsPosterior):
        return DrawnObserver(model.elbo, model.draw_posterior, model.log_prob)
    return DrawnObserver(model.elbo)
