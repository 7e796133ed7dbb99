"""beta-TCVAE, Chen et al. 2018, https://arxiv.org/abs/1802.04942.

The rate of a VAE is the sum of the latents' information about the image, their total correlation, and the
distances of their marginals to the prior (eq. 2). One player descends distortion + rate with the total
correlation alone weighted by beta (eq. 4 with alpha = gamma = 1): the rate in closed form, and (beta - 1)
times the total correlation as the batch's posteriors estimate it. `elbo` stays at beta = 1.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from genbench.losses.likelihood import Likelihood
from genbench.losses.variational import kl_to_standard_normal, reparameterize, total_correlation
from genbench.models.contract import Elbo, GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, latents_are_not_used
from genbench.networks.conditional import given
from genbench.ranges import number


class BetaTCVAE(GenerativeModel):
    """One player: encoder, decoder and likelihood."""

    counted = "autoencoder"
    compares_images = True  # the total correlation is one of all codes of a batch

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
        """Descend distortion + rate + (beta - 1) * total correlation."""
        yield Move("autoencoder", lambda: self.loss(images, *given(labels)))

    def loss(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean over images, in nats."""
        mu, logvar = self.posterior(images, *given(labels))
        z = reparameterize(mu, logvar, self.noise(len(images), self.latent_dim))
        rate = kl_to_standard_normal(mu, logvar).mean()
        distortion = -self.log_prob(images, z, *given(labels)).mean()
        correlation = total_correlation(z, mu, logvar)
        self.track("train/rate", rate)
        self.track("train/distortion", distortion)
        self.track("train/total_correlation", correlation)
        self.track("train/elbo", -(rate + distortion))
        return distortion + rate + (self.beta - 1) * correlation

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
        """Its terms with their weight."""
        weight = f"{self.beta - 1:g} * total correlation"
        return f"distortion + rate + {weight}, in nats per image ({self.likelihood.tag})"

    def symptoms(self) -> Sequence[Symptom]:
        """The posterior has collapsed."""
        return latents_are_not_used("train/rate")
