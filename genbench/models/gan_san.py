"""Slicing adversarial network, Takida et al. 2024, https://arxiv.org/abs/2301.12811 (section 5, eq. 14).

The discriminator is <omega, h(x)> with |omega| = 1. What it maximises is split between the two, so that
omega becomes the direction in which the features of real images and fakes are farthest apart:

    h      <-  the adversarial loss, omega held fixed
    omega  <-  E <omega, h(G(z))> - E <omega, h(x)>, h held fixed

and the generator's loss is the adversarial one's, the hinge of the authors' code by default.

Departure: R1 (Mescheder et al. 2018) in place of the spectral norm that the authors' small network has in
its inner layers; the same penalty as the other GANs have here.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genbench.losses.adversarial import AdversarialLoss
from genbench.losses.penalty import zero_centered
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, discriminator_has_won
from genbench.networks.conditional import given, knowing
from genbench.networks.heads import SlicingDiscriminator
from genbench.ranges import number


class SAN(GenerativeModel):
    """Two players; one loss moves the discriminator's features, another one its direction."""

    counted = "generator"

    def __init__(
        self,
        decoder: nn.Module,
        discriminator: SlicingDiscriminator,
        adversarial_loss: AdversarialLoss,
        latent_dim: int,
        r1_gamma: float,
        generator_optimizer: MakeOptimizer,
        discriminator_optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        number("model.r1_gamma", r1_gamma)
        self.decoder, self.discriminator = decoder, discriminator
        self.adversarial_loss, self.latent_dim = adversarial_loss, latent_dim
        self.r1_gamma, self.has_gradient_penalty = r1_gamma, bool(r1_gamma)
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer

    def players(self) -> dict[str, Player]:
        """The discriminator, then the generator."""
        return {
            "discriminator": Player([self.discriminator], self.discriminator_optimizer),
            "generator": Player([self.decoder], self.generator_optimizer),
        }

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Both players meet the same fakes."""
        fake = self.sample(self.noise(len(images), self.latent_dim), *given(labels))
        yield Move(
            "discriminator", lambda: self.discriminator_loss(images, fake.detach(), *given(labels))
        )
        yield Move("generator", lambda: self.generator_loss(fake, images, *given(labels)))

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """The adversarial loss for h and Wasserstein's for omega, with R1."""
        real_logits, real_direction = self.discriminator.apart(real, *given(labels))
        fake_logits, fake_direction = self.discriminator.apart(fake, *given(labels))
        self.track("logit/real", real_logits.mean())
        self.track("logit/fake", fake_logits.mean())
        features = self.adversarial_loss.discriminator(real_logits, fake_logits)
        self.track("adversarial/discriminator", features)
        loss = features + fake_direction.mean() - real_direction.mean()
        if self.r1_gamma:
            loss = loss + self.r1_gamma * zero_centered(knowing(self.discriminator, labels), real)
        return loss

    def generator_loss(self, fake: Tensor, real: Tensor, labels: Tensor | None = None) -> Tensor:
        """Make the discriminator call fakes real."""
        discriminator = knowing(self.discriminator, labels)
        return self.adversarial_loss.generator(discriminator(fake), lambda: discriminator(real))

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decode latents; tanh bounds the image."""
        return torch.tanh(self.decoder(z, *given(labels)))

    def symptoms(self) -> Sequence[Symptom]:
        """The discriminator has won."""
        return discriminator_has_won(self.adversarial_loss, "adversarial/discriminator")
