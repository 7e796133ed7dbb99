"""Generative adversarial network, Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from genbench.losses.adversarial import AdversarialLoss
from genbench.losses.penalty import one_centered, zero_centered
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, discriminator_has_won
from genbench.networks.conditional import given, in_pieces, knowing
from genbench.ranges import number, whole


class GAN(GenerativeModel):
    """Two players: the discriminator moves `discriminator_steps` times, then the decoder once."""

    counted = "generator"

    def __init__(
        self,
        decoder: nn.Module,
        discriminator: nn.Module,
        adversarial_loss: AdversarialLoss,
        latent_dim: int,
        discriminator_steps: int,
        r1_gamma: float,
        gradient_penalty: float,
        generator_optimizer: MakeOptimizer,
        discriminator_optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        whole("model.discriminator_steps", discriminator_steps)
        number("model.r1_gamma", r1_gamma)
        number("model.gradient_penalty", gradient_penalty)
        self.decoder, self.discriminator = decoder, discriminator
        self.adversarial_loss, self.latent_dim = adversarial_loss, latent_dim
        self.discriminator_steps = discriminator_steps
        self.r1_gamma, self.gradient_penalty = r1_gamma, gradient_penalty
        self.has_gradient_penalty = bool(r1_gamma or gradient_penalty)
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer

    def players(self) -> dict[str, Player]:
        """The discriminator, then the generator."""
        return {
            "discriminator": Player([self.discriminator], self.discriminator_optimizer),
            "generator": Player([self.decoder], self.generator_optimizer),
        }

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Algorithm 1 of the paper; the last fakes serve both players, and only they need a graph."""
        pieces = images.chunk(self.discriminator_steps)
        told = in_pieces(labels, pieces)  # fakes have the labels of the real images
        for piece, (real, y) in enumerate(zip(pieces, told, strict=True), 1):
            with nullcontext() if piece == len(pieces) else torch.no_grad():
                fake = self.sample(self.noise(len(real), self.latent_dim), *given(y))
            yield Move(
                "discriminator", partial(self.discriminator_loss, real, fake.detach(), *given(y))
            )
        yield Move("generator", lambda: self.generator_loss(fake, real, *given(y)))

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Tell real from fake, under a penalty on the discriminator's gradient."""
        discriminator = knowing(self.discriminator, labels)
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        self.track("logit/real", real_logits.mean())
        self.track("logit/fake", fake_logits.mean())
        loss = self.adversarial_loss.discriminator(real_logits, fake_logits)
        self.track("adversarial/discriminator", loss)
        if self.r1_gamma:
            loss = loss + self.r1_gamma * zero_centered(discriminator, real)
        if self.gradient_penalty:
            mix = self.uniform(len(real), 1, 1, 1)
            loss = loss + self.gradient_penalty * one_centered(discriminator, real, fake, mix)
        return loss

    def generator_loss(self, fake: Tensor, real: Tensor, labels: Tensor | None = None) -> Tensor:
        """Make the discriminator call fakes real, or more real than the last real batch."""
        discriminator = knowing(self.discriminator, labels)
        return self.adversarial_loss.generator(discriminator(fake), lambda: discriminator(real))

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decode latents; tanh bounds the image."""
        return torch.tanh(self.decoder(z, *given(labels)))

    def symptoms(self) -> Sequence[Symptom]:
        """The discriminator has won."""
        return discriminator_has_won(self.adversarial_loss, "adversarial/discriminator")
