"""Variational auto-encoder, Kingma and Welling 2014, https://arxiv.org/abs/1312.6114.

With beta != 1 the beta-VAE of Higgins et al. 2017; `elbo` stays at beta = 1 whatever is trained.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from genbench.losses.likelihood import Likelihood
from genbench.losses.variational import kl_to_standard_normal, reparameterize
from genbench.models.contract import Elbo, GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, latents_are_not_used
from genbench.networks.conditional import given
from genbench.ranges import number


class VAE(GenerativeModel):
    """One player: encoder, decoder and likelihood climb the evidence lower bound together."""

    counted = "autoencoder"

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        beta: float,
        optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        number("model.beta", beta)
        self.decoder, self.encoder, self.likelihood = decoder, encoder, likelihood
        self.latent_dim, self.beta, self.optimizer = latent_dim, beta, optimizer

    def players(self) -> dict[str, Player]:
        """The autoencoder alone."""
        return {
            "autoencoder": Player([self.decoder, self.encoder, self.likelihood], self.optimizer)
        }

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Descend distortion + beta * rate."""
        yield Move("autoencoder", lambda: self.loss(images, *given(labels)))

    def loss(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean over images of distortion + beta * rate, in nats."""
        rate, distortion = self.elbo(
            images, self.noise(len(images), self.latent_dim), *given(labels)
        )
        self.track("train/rate", rate.mean())
        self.track("train/distortion", distortion.mean())
        self.track("train/elbo", -(rate + distortion).mean())
        return (distortion + self.beta * rate).mean()

    def elbo(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Elbo:
        """Rate KL(q(z|x) || p(z)) and distortion -log p(x|z), z = mu + sigma * noise: eq. 10."""
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
        """Distortion and rate with their weight."""
        return f"distortion + {self.beta:g} * rate, in nats per image ({self.likelihood.tag})"

    def symptoms(self) -> Sequence[Symptom]:
        """The posterior has collapsed."""
        return latents_are_not_used("train/rate")
