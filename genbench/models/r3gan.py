"""R3GAN, Huang et al. 2024, "The GAN is dead; long live the GAN!", https://arxiv.org/abs/2501.05441.

A relativistic pairing loss, and a zero-centred gradient penalty of one weight on real images (R1) and on
fakes (R2), with which the game converges locally (section 2 of the paper):

    discriminator <-  E softplus(-(D(x) - D(G(z)))) + gamma / 2 (E |grad D(x)|^2 + E |grad D(G(z))|^2)
    generator     <-  E softplus(-(D(G(z)) - D(x)))

Over a burn-in gamma falls and Adam's second beta rises along half a cosine (appendix D). Of the paper's
other two schedules that of the learning rate is `schedule=burn-in`, and that of the average `ema=burn-in`;
its networks are `network=r3`. `experiment=r3gan` has all of it.

Departures: a step has one real batch, which both players meet, where the authors draw another one for the
generator: models of one comparison see equally many real images. Both share one fake batch, as the
GAN here does.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genbench.losses.adversarial import AdversarialLoss
from genbench.losses.penalty import zero_centered
from genbench.losses.ramp import Cosine
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, discriminator_has_won
from genbench.networks.conditional import given, knowing


class R3GAN(GenerativeModel):
    """Two players, one move each; the discriminator is penalised on both sides."""

    counted = "generator"
    has_gradient_penalty = True

    def __init__(
        self,
        decoder: nn.Module,
        discriminator: nn.Module,
        adversarial_loss: AdversarialLoss,
        latent_dim: int,
        gamma: Cosine,
        beta2: Cosine,
        generator_optimizer: MakeOptimizer,
        discriminator_optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        self.decoder, self.discriminator = decoder, discriminator
        self.adversarial_loss, self.latent_dim = adversarial_loss, latent_dim
        self.gamma, self.beta2 = gamma, beta2
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer

    def players(self) -> dict[str, Player]:
        """The discriminator, then the generator; both with the second beta of the hour."""
        return {
            "discriminator": Player(
                [self.discriminator], self.discriminator_optimizer, self.changes
            ),
            "generator": Player([self.decoder], self.generator_optimizer, self.changes),
        }

    def changes(self, progress: float) -> dict[str, tuple[float, float]]:
        """Adam's betas; the first one is 0."""
        return {"betas": (0.0, self.beta2.at(progress))}

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Both players meet the same real images and the same fakes."""
        fake = self.sample(self.noise(len(images), self.latent_dim), *given(labels))
        yield Move(
            "discriminator", lambda: self.discriminator_loss(images, fake.detach(), *given(labels))
        )
        yield Move("generator", lambda: self.generator_loss(fake, images, *given(labels)))

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """The relativistic loss with gamma (R1 + R2)."""
        discriminator = knowing(self.discriminator, labels)
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        self.track("logit/real", real_logits.mean())
        self.track("logit/fake", fake_logits.mean())
        loss = self.adversarial_loss.discriminator(real_logits, fake_logits)
        self.track("adversarial/discriminator", loss)
        r1 = zero_centered(discriminator, real)
        r2 = zero_centered(discriminator, fake)
        self.track("penalty/r1", r1)
        self.track("penalty/r2", r2)
        return loss + self.gamma.of(self.progress) * (r1 + r2)

    def generator_loss(self, fake: Tensor, real: Tensor, labels: Tensor | None = None) -> Tensor:
        """Make fakes more real than the real images that they are paired with."""
        discriminator = knowing(self.discriminator, labels)
        return self.adversarial_loss.generator(discriminator(fake), lambda: discriminator(real))

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decode latents; tanh bounds the image."""
        return torch.tanh(self.decoder(z, *given(labels)))

    def objective(self) -> str:
        """The loss, and how its penalty changes."""
        return (
            f"{type(self.adversarial_loss).__name__} + gamma (R1 + R2), "
            f"gamma {self.gamma.begin:g} -> {self.gamma.end:g}"
        )

    def symptoms(self) -> Sequence[Symptom]:
        """The discriminator has won."""
        return discriminator_has_won(self.adversarial_loss, "adversarial/discriminator")
