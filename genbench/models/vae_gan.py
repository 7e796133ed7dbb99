"""VAE-GAN, Larsen et al. 2016, https://arxiv.org/abs/1512.09300, algorithm 1.

The paper's three updates are

    encoder       <-  L_prior + L_llike
    decoder       <-  gamma * L_llike - L_GAN
    discriminator <-  L_GAN

Adam does not see the scale of a loss, so the decoder may as well descend L_llike - L_GAN / gamma, and
one optimizer serves encoder and decoder: L_prior + L_llike - L_GAN / gamma, where L_GAN decodes a
detached z and so never reaches the encoder. This holds without weight decay and without clipping of
the two gradients' joint norm.

Where it departs from the paper (what was tried, with figures: docs/log.md):

- In L_llike the Gaussian of the features has a learned variance (`FeatureGaussian`, the sigma-VAE of
  Rybkin et al. 2021, https://arxiv.org/abs/2006.13202). The paper's has variance 1, which suits the
  features of its BatchNorm; those of a discriminator without norm, under R1, are so small that L_llike
  is a few nats, the KL wins, and the encoder dies. `feature_likelihood=None` has variance 1.
- The discriminator has R1 (Mescheder et al. 2018) in place of BatchNorm, and no player ever pauses, as
  in the authors' code (https://github.com/andersbll/autoencoding_beyond_pixels).
- L_GAN takes the mean over its two kinds of fake, not their sum, and the decoder's part of it is any
  adversarial loss, non-saturating (Goodfellow et al. 2014) by default.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genbench.losses.adversarial import AdversarialLoss
from genbench.losses.likelihood import FeatureGaussian
from genbench.losses.penalty import zero_centered
from genbench.losses.variational import kl_to_standard_normal, reparameterize
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, discriminator_has_won, latents_are_not_used
from genbench.networks.heads import Discriminator


class VAEGAN(GenerativeModel):
    """A VAE whose reconstruction error is measured in its own discriminator.

    It has a posterior but no pixel likelihood, so it offers no `elbo`. Runs whose config does not name
    `feature_likelihood` have none: variance 1.
    """

    counted = "autoencoder"

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        discriminator: Discriminator,
        adversarial_loss: AdversarialLoss,
        latent_dim: int,
        gamma: float,
        feature_stage: int,
        r1_gamma: float,
        autoencoder_optimizer: MakeOptimizer,
        discriminator_optimizer: MakeOptimizer,
        feature_likelihood: FeatureGaussian | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.encoder, self.discriminator = decoder, encoder, discriminator
        self.adversarial_loss, self.latent_dim = adversarial_loss, latent_dim
        self.gamma, self.feature_stage, self.r1_gamma = gamma, feature_stage, r1_gamma
        self.feature_likelihood = feature_likelihood
        self.has_gradient_penalty = bool(r1_gamma)
        self.autoencoder_optimizer = autoencoder_optimizer
        self.discriminator_optimizer = discriminator_optimizer

    def players(self) -> dict[str, Player]:
        """The discriminator, then encoder and decoder."""
        autoencoder = [self.decoder, self.encoder]
        if self.feature_likelihood is not None:
            autoencoder.append(self.feature_likelihood)
        return {
            "discriminator": Player([self.discriminator], self.discriminator_optimizer),
            "autoencoder": Player(autoencoder, self.autoencoder_optimizer),
        }

    def step(self, images: Tensor) -> Iterator[Move]:
        """The discriminator sees reconstructions and prior samples as fakes, half and half."""
        mu, logvar = self.posterior(images)
        z = reparameterize(mu, logvar, self.noise(len(images), self.latent_dim))
        recoded = self.sample(z.detach())  # a reconstruction that leads back to the decoder alone
        prior = self.sample(self.noise(len(images), self.latent_dim))
        yield Move(
            "discriminator",
            lambda: self.discriminator_loss(images, recoded.detach(), prior.detach()),
        )
        yield Move(
            "autoencoder", lambda: self.autoencoder_loss(images, mu, logvar, z, recoded, prior)
        )

    def discriminator_loss(self, real: Tensor, recoded: Tensor, prior: Tensor) -> Tensor:
        """-L_GAN, real against the mean over both kinds of fake, with R1 (Mescheder et al. 2018)."""
        real_logits = self.discriminator(real)
        recoded_logits, prior_logits = self.discriminator(recoded), self.discriminator(prior)
        self.track("logit/real", real_logits.mean())
        self.track("logit/reconstruction", recoded_logits.mean())
        self.track("logit/prior", prior_logits.mean())
        loss = 0.5 * (
            self.adversarial_loss.discriminator(real_logits, recoded_logits)
            + self.adversarial_loss.discriminator(real_logits, prior_logits)
        )
        self.track("adversarial/discriminator", loss)
        if self.r1_gamma:
            loss = loss + self.r1_gamma * zero_centered(self.discriminator, real)
        return loss

    def autoencoder_loss(
        self, images: Tensor, mu: Tensor, logvar: Tensor, z: Tensor, recoded: Tensor, prior: Tensor
    ) -> Tensor:
        """L_prior + L_llike + adversarial / gamma."""
        kl = kl_to_standard_normal(mu, logvar).mean()
        distance = self.feature_distance(images, self.sample(z)).mean()
        adversarial = 0.5 * (
            self.adversarial_loss.generator(self.discriminator(recoded))
            + self.adversarial_loss.generator(self.discriminator(prior))
        )
        self.track("train/rate", kl)
        self.track("train/feature_distance", distance)
        self.track("train/adversarial", adversarial)
        return kl + distance + adversarial / self.gamma

    def feature_distance(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """L_llike, eq. 7: -log N(D_l(x) | D_l(x~), sigma^2 I) without its constant, (N,)."""
        with torch.no_grad():
            target = self.discriminator.features(images)[self.feature_stage].float()
        features = self.discriminator.features(reconstructions)[self.feature_stage].float()
        if self.feature_likelihood is None:
            return 0.5 * (features - target).square().flatten(1).sum(1)
        self.track("train/feature_sigma", self.feature_likelihood.log_sigma.exp())
        return -self.feature_likelihood.log_prob(target, features, images[0].numel())

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

    def symptoms(self) -> Sequence[Symptom]:
        """The discriminator has won, or the posterior has collapsed."""
        won = discriminator_has_won(self.adversarial_loss, "adversarial/discriminator")
        return (*won, *latents_are_not_used("train/rate"))
