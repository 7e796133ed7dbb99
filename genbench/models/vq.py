"""VQ-VAE, van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, with the codebook of appendix A.1.

The latents are `tokens` vectors, each replaced by the nearest one of a codebook (eq. 1), through which the
gradient passes as if it were not there. The codebook follows exponential means of the vectors that it
replaces; the encoder is kept near it by the commitment loss (the last term of eq. 3, its only weight). A
second player learns the prior over the codes, token after token; samples are decoded from its draws:

    prior       <-  -log p(codes of images)
    autoencoder <-  -log p(x | codes) + commitment * |z - sg[e]|^2

Minus the prior's loss and the distortion is a bound on log p(x), the posterior being all on one code.

Departures: the latents are the arena's vector in pieces, not a map; the prior is a masked network of
the codes (Germain et al. 2015) in place of a PixelCNN over a stage of its own, and is trained along.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.losses.likelihood import Likelihood
from genbench.losses.quantisation import straight_through
from genbench.models.contract import Elbo, GenerativeModel, MakeOptimizer, Move, Player
from genbench.networks.autoregressive import MaskedPrior
from genbench.networks.codebook import Codebook
from genbench.networks.conditional import ConditionalPrior, given
from genbench.ranges import number


class VQVAE(GenerativeModel):
    """Two players: the prior over codes, then encoder, decoder and likelihood."""

    counted = "autoencoder"
    compares_images = True  # the codebook follows the means of a whole batch

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        prior: MaskedPrior | ConditionalPrior,
        codebook: Callable[..., Codebook],
        likelihood: Likelihood,
        latent_dim: int,
        commitment: float,
        prior_optimizer: MakeOptimizer,
        autoencoder_optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        number("model.commitment", commitment)
        if latent_dim % prior.tokens:
            raise UserMistake(
                f"model.prior.tokens={prior.tokens} does not divide arena.latent_dim={latent_dim}: "
                "choose a number that does"
            )
        self.decoder, self.encoder, self.prior = decoder, encoder, prior
        self.codebook = codebook(dim=latent_dim // prior.tokens)
        if prior.codes != self.codebook.codes:
            raise UserMistake(
                f"model.prior.codes={prior.codes} are not the {self.codebook.codes} of model.codebook: "
                "set model.codebook.codes alone"
            )
        self.likelihood = likelihood
        self.latent_dim, self.commitment = latent_dim, commitment
        self.prior_optimizer, self.autoencoder_optimizer = prior_optimizer, autoencoder_optimizer

    def players(self) -> dict[str, Player]:
        """The prior, then the autoencoder."""
        autoencoder = [self.decoder, self.encoder, self.likelihood]
        return {
            "prior": Player([self.prior], self.prior_optimizer),
            "autoencoder": Player(autoencoder, self.autoencoder_optimizer),
        }

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Both players meet the same codes; then the codebook follows them, in training."""
        told = given(labels)
        values = self.values(images, *told)
        codes = self.codebook.nearest(values)
        yield Move("prior", lambda: self.prior_loss(codes, *told))
        yield Move("autoencoder", lambda: self.autoencoder_loss(images, values, codes, *told))
        if self.training:
            self.codebook.follow(values, codes)

    def prior_loss(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """-log p(codes), mean over images, in nats: the rate."""
        rate: Tensor = -self.prior(codes, *given(labels)).mean()
        used, perplexity = self.codebook.usage()
        self.track("train/rate", rate)
        self.track("codes/used", used)
        self.track("codes/perplexity", perplexity)
        return rate

    def autoencoder_loss(
        self, images: Tensor, values: Tensor, codes: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """The distortion -log p(x | codes) and the commitment, means over images."""
        vectors = self.codebook(codes)
        z = straight_through(values, vectors).flatten(1)
        decoded = self.decoder(z, *given(labels))
        distortion = -self.likelihood.log_prob(images, decoded).mean()
        distance = (values - vectors).square().flatten(1).sum(1).mean()
        self.track("train/distortion", distortion)
        self.track("train/commitment", distance)
        loss: Tensor = distortion + self.commitment * distance
        return loss

    def values(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What is quantised: (N, tokens, dim)."""
        encoded: Tensor = self.encoder(images, *given(labels))
        return encoded.view(images.shape[0], -1, self.codebook.dim)

    def elbo(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Elbo:
        """Rate -log p(codes) and distortion -log p(x | codes); the posterior is on one code, and needs no noise."""
        codes = self.tokens(images, *given(labels))
        z: Tensor = self.codebook(codes).flatten(1)
        rate: Tensor = -self.prior(codes, *given(labels))
        return Elbo(rate, -self.likelihood.log_prob(images, self.decoder(z, *given(labels))))

    @property
    def alphabet(self) -> Tensor:
        """The codebook, (K, d / tokens)."""
        return self.codebook.vectors

    def tokens(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Numbers of the codes of images, (N, tokens)."""
        return self.codebook.nearest(self.values(images, *given(labels)))

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` latents from the learned prior, on the CPU; under a condition the noise that it draws them by."""
        if self.condition is not None:
            return torch.randn(n, self.prior.tokens, generator=generator)
        uniform = torch.rand(n, self.prior.tokens, generator=generator).to(self.device)
        z: Tensor = self.codebook(self.prior.draw(uniform)).flatten(1)
        return z.cpu()

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean images of p(x | z); see `latents`."""
        return self.likelihood.image(self._decoded(z, labels))

    def draw(self, z: Tensor, uniform: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images drawn from p(x | z), by its inverse CDF at `uniform` (N, C, H, W)."""
        return self.likelihood.draw(self._decoded(z, labels), uniform)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean images at the codes."""
        z = self.codebook(self.tokens(images, *given(labels))).flatten(1)
        return self.likelihood.image(self.decoder(z, *given(labels)))

    def _decoded(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The decoder's output at latents, or at those of a label that the prior draws by noise."""
        if self.condition is not None:
            z = self.codebook(self.prior.draw(torch.special.ndtr(z), *given(labels))).flatten(1)
        decoded: Tensor = self.decoder(z, *given(labels))
        return decoded

    def objective(self) -> str:
        """What both players descend."""
        commitment = f"{self.commitment:g} * commitment"
        return f"distortion + {commitment}; and -log p(codes), in nats ({self.likelihood.tag})"
