"""Ladder VAE: groups of latents with a top-down posterior, Sonderby et al. 2016, https://arxiv.org/abs/1602.02282.

The prior is p(z_1) p(z_2 | z_1) ..., and the posterior takes the same way down, q(z_1 | x) q(z_2 | z_1, x) ...:
VDVAE (Child 2021, https://arxiv.org/abs/2011.10650) in small. One player descends

    -log p(x | z) + beta * sum over groups of KL(q(z_g | z_<g, x) || p(z_g | z_<g)), beta rising from 0 to 1

The model's latents are the noise eps of which the prior's draws are a function, so that they are N(0, I)
whatever the prior has learned. Given the groups above, a group's posterior is Gaussian in eps too, and its
KL is that to N(0, I). All groups together are not: there is no mean and variance of q(eps | x) for
scores that need them (active units, the surgery of the ELBO), and these stay blank.

Departures: all groups see the same features of the image, and the arena's decoder sees all groups side by
side, where those papers have a stage of the network for each; posteriors are relative to the prior as in
NVAE (Vahdat and Kautz 2020), not by its precision.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genbench.losses.likelihood import Likelihood
from genbench.losses.variational import kl_to_standard_normal, reparameterize
from genbench.models.contract import Drawn, Elbo, GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, latents_are_not_used
from genbench.networks.ladder import LadderEncoder, LadderPrior
from genbench.ranges import number


class Groups(NamedTuple):
    """A draw of the posterior, all groups side by side, and the rate of each."""

    eps: Tensor  # (N, latent_dim)
    z: Tensor  # (N, latent_dim), what the decoder sees
    rates: Tensor  # (N, groups), in nats
    log_ratio: Tensor  # log p(eps) - log q(eps | x), (N,)


class LadderVAE(GenerativeModel):
    """One player: encoder, prior, decoder and likelihood."""

    counted = "autoencoder"

    def __init__(
        self,
        decoder: nn.Module,
        encoder: LadderEncoder,
        prior: LadderPrior,
        likelihood: Likelihood,
        latent_dim: int,
        warmup: float,
        optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        number("model.warmup", warmup, 0, 1)
        self.decoder, self.encoder, self.prior = decoder, encoder, prior
        self.likelihood, self.latent_dim = likelihood, latent_dim
        self.warmup, self.optimizer = warmup, optimizer

    def players(self) -> dict[str, Player]:
        """The autoencoder alone, with its prior."""
        autoencoder = [self.decoder, self.encoder, self.prior, self.likelihood]
        return {"autoencoder": Player(autoencoder, self.optimizer)}

    def step(self, images: Tensor) -> Iterator[Move]:
        """Descend distortion + beta * rate."""
        yield Move("autoencoder", lambda: self.loss(images))

    def loss(self, images: Tensor) -> Tensor:
        """Mean over images, in nats; beta rises over the share `warmup` of the budget."""
        down = self.descend(images, self.noise(len(images), self.latent_dim))
        distortion = -self.likelihood.log_prob(images, self.decoder(down.z)).mean()
        for number_, rate in enumerate(down.rates.mean(0), 1):
            self.track(f"train/rate_{number_}", rate)
        rate = down.rates.sum(1).mean()
        self.track("train/rate", rate)
        self.track("train/distortion", distortion)
        self.track("train/elbo", -(rate + distortion))
        beta = (self.progress / self.warmup).clamp(max=1.0) if self.warmup else 1.0
        return distortion + beta * rate

    def descend(self, images: Tensor, noise: Tensor) -> Groups:
        """Draw one group after the other from the posterior, by noise (N, latent_dim)."""
        seen = self.encoder(images)
        eps = z = noise[:, :0]
        rates, ratios = [], []
        for group, own in enumerate(torch.split(noise, self.encoder.sizes, 1)):
            mu, logvar = self.encoder.group(group, seen, z)
            drawn = reparameterize(mu, logvar, own)
            rates.append(kl_to_standard_normal(mu, logvar))
            ratios.append(0.5 * (own.square() + logvar - drawn.square()).sum(1))
            eps, z = torch.cat([eps, drawn], 1), torch.cat([z, self.prior.group(z, drawn)], 1)
        return Groups(eps, z, torch.stack(rates, 1), torch.stack(ratios, 1).sum(1))

    def draw_posterior(self, images: Tensor, noise: Tensor) -> Drawn:
        """A draw of q(eps | x), with its rate and log p(eps) - log q(eps | x)."""
        down = self.descend(images, noise)
        return Drawn(down.eps, down.rates.sum(1), down.log_ratio)

    def elbo(self, images: Tensor, noise: Tensor) -> Elbo:
        """The sum of the groups' rates and the distortion, at beta = 1."""
        down = self.descend(images, noise)
        distortion = -self.likelihood.log_prob(images, self.decoder(down.z))
        return Elbo(down.rates.sum(1), distortion)

    def log_prob(self, images: Tensor, z: Tensor) -> Tensor:
        """Log p(x | eps), for `z` the noise of all groups."""
        return self.likelihood.log_prob(images, self.decoder(self.prior(z)))

    def sample(self, z: Tensor) -> Tensor:
        """Mean images of p(x | eps), for `z` the noise of all groups."""
        return self.likelihood.image(self.decoder(self.prior(z)))

    def draw(self, z: Tensor, uniform: Tensor) -> Tensor:
        """Images drawn from p(x | eps), by its inverse CDF at `uniform` (N, C, H, W)."""
        return self.likelihood.draw(self.decoder(self.prior(z)), uniform)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Mean images at the mean of each group, given the means of those above."""
        middle = images.new_zeros(len(images), self.latent_dim)
        return self.likelihood.image(self.decoder(self.descend(images, middle).z))

    def objective(self) -> str:
        """Distortion and the rates."""
        groups = len(self.encoder.sizes)
        return f"distortion + {groups} rates, in nats per image ({self.likelihood.tag})"

    def symptoms(self) -> Sequence[Symptom]:
        """The posterior has collapsed."""
        return latents_are_not_used("train/rate")
