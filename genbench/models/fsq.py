"""Finite scalar quantisation, Mentzer et al. 2023, https://arxiv.org/abs/2309.15505, section 3.

Each latent is bounded and rounded to one of `levels` values (eq. 1 and 2), through which the gradient
passes as if it were not there. There is no codebook to learn. A second player learns the prior
over the codes, p(k_1, ..., k_d), one latent after the other; samples are decoded from its draws:

    prior       <-  -log p(codes of images)
    autoencoder <-  -log p(x | codes)

so that -(both) is a bound on log p(x), the posterior being all on one code.

Departures: the latents are the arena's vector, not a map; the prior is a masked network of each latent's
levels (Germain et al. 2015) in place of a transformer over a stage of its own, and is trained along. With
`batch_norm` the encoder's outputs are standardised over the batch before they are bounded, without scale and
shift (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167): else all images can drift onto one side of the
bound, where they share a level and its gradient is all but 0.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.losses.likelihood import Likelihood
from genbench.losses.quantisation import perplexity, straight_through
from genbench.models.contract import Elbo, GenerativeModel, MakeOptimizer, Move, Player
from genbench.networks.autoregressive import MaskedPrior
from genbench.networks.conditional import ConditionalPrior, given
from genbench.ranges import whole

# of the running statistics: the encoder moves so fast that a mean over ten batches (0.1) is one of other weights
MOMENTUM = 0.5


class FSQ(GenerativeModel):
    """Two players: the prior over codes, then encoder, decoder and likelihood.

    `levels` of each latent are an odd number from 3 on. With `batch_norm` evaluation takes the running statistics of
    training. Raises UserMistake for other levels.
    """

    counted = "autoencoder"

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        prior: MaskedPrior | ConditionalPrior,
        likelihood: Likelihood,
        latent_dim: int,
        levels: int,
        prior_optimizer: MakeOptimizer,
        autoencoder_optimizer: MakeOptimizer,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        whole("model.levels", levels, 3)
        if levels % 2 == 0:
            raise UserMistake(
                f"model.levels={levels}: 0 must be a level, as the bound is even: give an odd number"
            )
        self.decoder, self.encoder, self.prior = decoder, encoder, prior
        self.likelihood, self.latent_dim, self.levels = likelihood, latent_dim, levels
        self.largest = (levels - 1) // 2
        self.norm = (
            nn.BatchNorm1d(latent_dim, affine=False, momentum=MOMENTUM)
            if batch_norm
            else nn.Identity()
        )
        self.prior_optimizer, self.autoencoder_optimizer = prior_optimizer, autoencoder_optimizer

    def players(self) -> dict[str, Player]:
        """The prior, then the autoencoder."""
        autoencoder = [self.decoder, self.encoder, self.likelihood]
        return {
            "prior": Player([self.prior], self.prior_optimizer),
            "autoencoder": Player(autoencoder, self.autoencoder_optimizer),
        }

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Both players meet the same codes."""
        told = given(labels)
        z = self.quantise(images, *told)
        yield Move("prior", lambda: self.prior_loss(z.detach(), *told))
        yield Move("autoencoder", lambda: self.autoencoder_loss(images, z, *told))

    def prior_loss(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """-log p(codes), mean over images, in nats: the rate."""
        codes = self.codes(z)
        rate: Tensor = -self.prior(codes, *given(labels)).mean()
        self.track("train/rate", rate)
        used = torch.stack([perplexity(own, self.levels) for own in codes.unbind(1)])
        self.track("codes/perplexity", used.mean())  # of a latent's levels, in a batch
        return rate

    def autoencoder_loss(self, images: Tensor, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """-log p(x | codes), mean over images, in nats: the distortion."""
        decoded = self.decoder(z, *given(labels))
        distortion = -self.likelihood.log_prob(images, decoded).mean()
        self.track("train/distortion", distortion)
        return distortion

    def quantise(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (N, d) of `levels` values from -1 to 1, with a gradient to the encoder."""
        bounded = self.largest * torch.tanh(self.norm(self.encoder(images, *given(labels))))
        return straight_through(bounded, bounded.round()) / self.largest

    def codes(self, z: Tensor) -> Tensor:
        """Numbers 0 .. levels - 1 of quantised latents (N, d)."""
        return (z * self.largest).round().long() + self.largest

    def elbo(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Elbo:
        """Rate -log p(codes) and distortion -log p(x | codes); the posterior is on one code, and needs no noise."""
        z = self.quantise(images, *given(labels))
        rate: Tensor = -self.prior(self.codes(z), *given(labels))
        return Elbo(rate, -self.likelihood.log_prob(images, self.decoder(z, *given(labels))))

    @property
    def alphabet(self) -> Tensor:
        """The values of a level, (levels, 1)."""
        every = torch.arange(self.levels, device=self.device)
        return ((every - self.largest) / self.largest)[:, None]

    def tokens(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Numbers of the levels of images' latents, (N, d)."""
        return self.codes(self.quantise(images, *given(labels)))

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` latents from the learned prior, on the CPU; under a condition the noise that it draws them by."""
        if self.condition is not None:
            return torch.randn(n, self.latent_dim, generator=generator)
        uniform = torch.rand(n, self.latent_dim, generator=generator).to(self.device)
        return self._levels(self.prior.draw(uniform)).cpu()

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean images of p(x | z); see `latents`."""
        return self.likelihood.image(self._decoded(z, labels))

    def draw(self, z: Tensor, uniform: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images drawn from p(x | z), by its inverse CDF at `uniform` (N, C, H, W)."""
        return self.likelihood.draw(self._decoded(z, labels), uniform)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean images at the codes."""
        z = self.quantise(images, *given(labels))
        return self.likelihood.image(self.decoder(z, *given(labels)))

    def _decoded(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The decoder's output at latents, or at those of a label that the prior draws by noise."""
        if self.condition is not None:
            z = self._levels(self.prior.draw(torch.special.ndtr(z), *given(labels)))
        decoded: Tensor = self.decoder(z, *given(labels))
        return decoded

    def _levels(self, codes: Tensor) -> Tensor:
        return (codes - self.largest) / self.largest

    def objective(self) -> str:
        """What both players descend."""
        return f"distortion; and -log p(codes), in nats per image ({self.likelihood.tag})"
