"""The autoencoder of latent diffusion, Rombach et al. 2022, https://arxiv.org/abs/2112.10752, appendix G.

Images are squeezed into latents that a second stage samples; the rate is all but free. The decoder is a
VAE's and a GAN's generator at once, on reconstructions alone:

    discriminator <-  hinge loss, images as real, reconstructions as fakes, patch by patch
    autoencoder   <-  L_rec + kl_weight * KL(q(z|x) || N(0, I)) + weight * lambda * (-D(reconstruction))
    L_rec          =  |x - reconstruction|, summed over values, + perceptual_weight * values * distance
    lambda         =  |grad L_rec| / |grad (-D)| at the decoder's last weight (Esser et al. 2021, eq. 7)

The decoder hears of the discriminator from the share `start` of the budget on. N(0, I) is not where the
codes are: sample it with `prior=mixture` or `prior=flow`, which is the second stage in small.

Departures: the latents are the arena's vector, not a map; the discriminator learns from the first step, not
from `start`; the perceptual distance has no learned weights, and is in whatever fixed network the config
names; L_rec has no variance (that of the authors' code is in no optimizer, and stays 1).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genbench.losses.adaptive import gradient_ratio, last_weight
from genbench.losses.adversarial import AdversarialLoss
from genbench.losses.perceptual import PerceptualDistance
from genbench.losses.variational import kl_to_standard_normal, reparameterize
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, discriminator_has_won
from genbench.ranges import number


class AEKL(GenerativeModel):
    """Two players: the discriminator of patches, then encoder and decoder."""

    counted = "autoencoder"
    compares_images = True  # lambda is a ratio of a whole batch's gradients

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        discriminator: nn.Module,
        adversarial_loss: AdversarialLoss,
        perceptual: PerceptualDistance | None,
        latent_dim: int,
        perceptual_weight: float,
        kl_weight: float,
        weight: float,
        start: float,
        autoencoder_optimizer: MakeOptimizer,
        discriminator_optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        number("model.perceptual_weight", perceptual_weight)
        number("model.kl_weight", kl_weight)
        number("model.weight", weight)
        number("model.start", start, 0, 1)
        self.decoder, self.encoder, self.discriminator = decoder, encoder, discriminator
        self.adversarial_loss, self.latent_dim = adversarial_loss, latent_dim
        self.perceptual = perceptual if perceptual_weight else None
        if self.perceptual is not None:
            self.loss_networks = {self.perceptual.name: self.perceptual.sha256}
        self.perceptual_weight, self.kl_weight = perceptual_weight, kl_weight
        self.weight, self.start = weight, start
        self.autoencoder_optimizer = autoencoder_optimizer
        self.discriminator_optimizer = discriminator_optimizer

    def players(self) -> dict[str, Player]:
        """The discriminator, then the autoencoder."""
        return {
            "discriminator": Player([self.discriminator], self.discriminator_optimizer),
            "autoencoder": Player([self.decoder, self.encoder], self.autoencoder_optimizer),
        }

    def step(self, images: Tensor) -> Iterator[Move]:
        """Both players meet the same reconstructions."""
        mu, logvar = self.posterior(images)
        fake = self.sample(reparameterize(mu, logvar, self.noise(len(images), self.latent_dim)))
        yield Move("discriminator", lambda: self.discriminator_loss(images, fake.detach()))
        yield Move("autoencoder", lambda: self.autoencoder_loss(images, fake, mu, logvar))

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Tell images from reconstructions."""
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        self.track("logit/real", real_logits.mean())
        self.track("logit/reconstruction", fake_logits.mean())
        loss = self.adversarial_loss.discriminator(real_logits, fake_logits)
        self.track("adversarial/discriminator", loss)
        return loss

    def autoencoder_loss(self, images: Tensor, fake: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        """Reconstruct, keep the rate finite, and from `start` on pass for real."""
        reconstruction = self.reconstruction_loss(images, fake)
        rate = kl_to_standard_normal(mu, logvar).mean()
        adversarial = self.adversarial_loss.generator(
            self.discriminator(fake), lambda: self.discriminator(images)
        )
        ratio = gradient_ratio(reconstruction, adversarial, last_weight(self.decoder))
        begun = (self.progress >= self.start).float()  # on a GPU nobody waits for it
        self.track("train/rate", rate)
        self.track("train/adversarial", adversarial)
        self.track("train/adaptive_weight", ratio)
        loss: Tensor = reconstruction + self.kl_weight * rate
        game: Tensor = begun * self.weight * ratio * adversarial
        return loss + game

    def reconstruction_loss(self, images: Tensor, fake: Tensor) -> Tensor:
        """L_rec, mean over images."""
        absolute = (images - fake).abs().flatten(1).sum(1).mean()
        self.track("train/absolute_error", absolute)
        if self.perceptual is None:
            return absolute
        distance: Tensor = self.perceptual(fake, images).mean()
        self.track("train/perceptual_distance", distance)
        return absolute + self.perceptual_weight * images[0].numel() * distance

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x)."""
        mu, logvar = self.encoder(images)
        return mu, logvar

    def sample(self, z: Tensor) -> Tensor:
        """Decode latents; tanh bounds the image."""
        return torch.tanh(self.decoder(z))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior's mean."""
        return self.sample(self.posterior(images)[0])

    def objective(self) -> str:
        """Its terms with their weights."""
        terms = ["absolute error"]
        if self.perceptual is not None:
            terms.append(f"{self.perceptual_weight:g} * distance in {self.perceptual.name}")
        terms += [f"{self.kl_weight:g} * rate", f"adaptive {self.weight:g} * adversarial loss"]
        return " + ".join(terms)

    def symptoms(self) -> Sequence[Symptom]:
        """The discriminator has won."""
        return discriminator_has_won(self.adversarial_loss, "adversarial/discriminator")
