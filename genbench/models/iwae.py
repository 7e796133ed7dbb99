"""Importance-weighted autoencoder, Burda et al. 2016, https://arxiv.org/abs/1509.00519.

One player climbs E log (1 / K) sum_k p(x, z_k) / q(z_k | x), eq. 8, with K draws of z for each image; K = 1
is the VAE with its rate estimated by the draw. `elbo` stays that of one draw, whatever is trained.

Departure: the arena's optimizer, without the paper's schedule.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from genbench.losses.likelihood import Likelihood
from genbench.losses.variational import (
    importance_log_weights,
    importance_weighted_bound,
    kl_to_standard_normal,
    reparameterize,
)
from genbench.models.contract import Elbo, GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, latents_are_not_used
from genbench.networks.conditional import given
from genbench.ranges import whole


class IWAE(GenerativeModel):
    """One player: encoder, decoder and likelihood; the decoder sees several latents of each image."""

    counted = "autoencoder"

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        importance_draws: int,
        optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        whole("model.importance_draws", importance_draws)
        self.decoder, self.encoder, self.likelihood = decoder, encoder, likelihood
        self.latent_dim, self.importance_draws = latent_dim, importance_draws
        self.optimizer = optimizer

    def players(self) -> dict[str, Player]:
        """The autoencoder alone."""
        return {
            "autoencoder": Player([self.decoder, self.encoder, self.likelihood], self.optimizer)
        }

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Climb the importance-weighted bound."""
        yield Move("autoencoder", lambda: self.loss(images, *given(labels)))

    def loss(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Minus the bound, mean over images, in nats."""
        mu, logvar = self.posterior(images, *given(labels))
        noise = self.noise(len(images), self.importance_draws, self.latent_dim)
        z = reparameterize(mu[:, None], logvar[:, None], noise)
        copies, *of_copies = (
            one.repeat_interleave(self.importance_draws, 0) for one in (images, *given(labels))
        )
        log_prob = self.log_prob(copies, z.flatten(0, 1), *of_copies).view(noise.shape[:2])
        log_weights = importance_log_weights(log_prob, noise, mu, logvar)
        bound = importance_weighted_bound(log_weights).mean()
        self.track("train/rate", kl_to_standard_normal(mu, logvar).mean())
        self.track("train/distortion", -log_prob.mean())
        self.track("train/iwae", bound)
        return -bound

    def elbo(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Elbo:
        """Rate KL(q(z|x) || p(z)) and distortion -log p(x|z), z = mu + sigma * noise."""
        mu, logvar = self.posterior(images, *given(labels))
        return Elbo(
            rate=kl_to_standard_normal(mu, logvar),
            distortion=-self.log_prob(images, reparameterize(mu, logvar, noise), *given(labels)),
        )

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), or of q(z|x, y) with labels."""
        mu, logvar = self.encoder(images, *given(labels))
        return mu, logvar

    def log_prob(self, images: Tensor, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Log p(x|z), or log p(x|z, y)."""
        return self.likelihood.log_prob(images, self.decoder(z, *given(labels)))

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean images of p(x|z), or of p(x|z, y)."""
        return self.likelihood.image(self.decoder(z, *given(labels)))

    def draw(self, z: Tensor, uniform: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images drawn from p(x|z), by its inverse CDF at `uniform` (N, C, H, W)."""
        return self.likelihood.draw(self.decoder(z, *given(labels)), uniform)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean images at the posterior's mean."""
        return self.sample(self.posterior(images, labels)[0], *given(labels))

    def objective(self) -> str:
        """The bound and its draws."""
        return f"-log of the mean of {self.importance_draws} importance weights, in nats per image"

    def symptoms(self) -> Sequence[Symptom]:
        """The posterior has collapsed."""
        return latents_are_not_used("train/rate")
