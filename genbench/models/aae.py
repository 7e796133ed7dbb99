"""Adversarial autoencoder, Makhzani et al. 2015, https://arxiv.org/abs/1511.05644, section 2 and figure 1.

A deterministic encoder, whose codes a discriminator in latent space compares with draws of the prior:

    discriminator <-  the adversarial loss, the prior's draws as real, codes of images as fakes
    encoder       <-  |x - G(E(x))|^2 + weight * make codes pass for the prior's
    decoder       <-  |x - G(E(x))|^2

Departures: encoder and decoder make one move on the sum of the two losses, where the authors alternate
between a phase of each; R1 (Mescheder et al. 2018) on the latent discriminator; a GAN of any loss.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genbench.losses.adversarial import AdversarialLoss
from genbench.losses.penalty import zero_centered
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, discriminator_has_won
from genbench.networks.conditional import given
from genbench.ranges import number


class AAE(GenerativeModel):
    """Two players: the discriminator of latents, then encoder and decoder."""

    counted = "autoencoder"

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        discriminator: nn.Module,
        adversarial_loss: AdversarialLoss,
        latent_dim: int,
        weight: float,
        r1_gamma: float,
        autoencoder_optimizer: MakeOptimizer,
        discriminator_optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        number("model.weight", weight)
        number("model.r1_gamma", r1_gamma)
        self.decoder, self.encoder, self.discriminator = decoder, encoder, discriminator
        self.adversarial_loss, self.latent_dim = adversarial_loss, latent_dim
        self.weight, self.r1_gamma = weight, r1_gamma
        self.has_gradient_penalty = bool(r1_gamma)
        self.autoencoder_optimizer = autoencoder_optimizer
        self.discriminator_optimizer = discriminator_optimizer

    def players(self) -> dict[str, Player]:
        """The discriminator of latents, then the autoencoder."""
        return {
            "discriminator": Player([self.discriminator], self.discriminator_optimizer),
            "autoencoder": Player([self.decoder, self.encoder], self.autoencoder_optimizer),
        }

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Both players meet the same codes and the same draws of the prior."""
        codes = self.encode(images, *given(labels))
        prior = self.noise(len(images), self.latent_dim)
        yield Move("discriminator", lambda: self.discriminator_loss(prior, codes.detach()))
        yield Move(
            "autoencoder", lambda: self.autoencoder_loss(images, codes, prior, *given(labels))
        )

    def discriminator_loss(self, prior: Tensor, codes: Tensor) -> Tensor:
        """Tell the prior's draws from codes, with R1 at the former."""
        real_logits, fake_logits = self.discriminator(prior), self.discriminator(codes)
        self.track("logit/prior", real_logits.mean())
        self.track("logit/codes", fake_logits.mean())
        loss = self.adversarial_loss.discriminator(real_logits, fake_logits)
        self.track("adversarial/discriminator", loss)
        if self.r1_gamma:
            loss = loss + self.r1_gamma * zero_centered(self.discriminator, prior)
        return loss

    def autoencoder_loss(
        self, images: Tensor, codes: Tensor, prior: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Squared error, summed over pixels, and the weighted adversarial loss of codes."""
        cost = (images - self.sample(codes, *given(labels))).square().flatten(1).sum(1).mean()
        logits = self.discriminator(codes)
        adversarial = self.adversarial_loss.generator(logits, lambda: self.discriminator(prior))
        self.track("train/cost", cost)
        self.track("train/adversarial", adversarial)
        return cost + self.weight * adversarial

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decode latents; tanh bounds the image."""
        return torch.tanh(self.decoder(z, *given(labels)))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The code of each image."""
        codes: Tensor = self.encoder(images, *given(labels))
        return codes

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Encode and decode."""
        return self.sample(self.encode(images, *given(labels)), *given(labels))

    def objective(self) -> str:
        """Its two terms with their weight."""
        return f"squared error + {self.weight:g} * adversarial loss of codes"

    def symptoms(self) -> Sequence[Symptom]:
        """The discriminator has won."""
        return discriminator_has_won(self.adversarial_loss, "adversarial/discriminator")
