"""VAE-GAN, Larsen et al. 2016, https://arxiv.org/abs/1512.09300, algorithm 1.

The paper's three updates are

    encoder       <-  L_prior + L_llike
    decoder       <-  gamma * L_llike - L_GAN
    discriminator <-  L_GAN

Adam does not see the scale of a loss, so the decoder may as well descend L_llike - L_GAN / gamma, and
one optimizer serves encoder and decoder: L_prior + L_llike - L_GAN / gamma, where L_GAN decodes a
detached z and so never reaches the encoder. This holds without weight decay and without clipping of
the two gradients' joint norm.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genbench.losses.adversarial import AdversarialLoss
from genbench.losses.penalty import zero_centered
from genbench.losses.variational import kl_to_standard_normal, reparameterize
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, discriminator_has_won, latents_are_not_used
from genbench.networks.heads import Discriminator


class VAEGAN(GenerativeModel):
    """A VAE whose reconstruction error is measured in its own discriminator.

    It has a posterior but no pixel likelihood, so it offers no `elbo`.
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
        feature_noise: str = "unit",
        feature_stages: str = "one",
        per_channel: bool = False,
        discriminate_reconstructions: bool = True,
        kl_weight: float = 1.0,
        sigma_speed: float = 10.0,
        pixel_weight: float = 0.0,
        at_most_pixels: bool = False,
    ) -> None:
        super().__init__()
        self.feature_noise, self.feature_stages = feature_noise, feature_stages
        self.per_channel, self.kl_weight = per_channel, kl_weight
        self.discriminate_reconstructions = discriminate_reconstructions
        self.sigma_speed, self.pixel_weight = sigma_speed, pixel_weight
        self.at_most_pixels = at_most_pixels
        self.theta: nn.Parameter | None = None
        if feature_noise == "learned":
            self.theta = nn.Parameter(torch.zeros(8))
        self.decoder, self.encoder, self.discriminator = decoder, encoder, discriminator
        self.adversarial_loss, self.latent_dim = adversarial_loss, latent_dim
        self.gamma, self.feature_stage, self.r1_gamma = gamma, feature_stage, r1_gamma
        self.has_gradient_penalty = bool(r1_gamma)
        self.autoencoder_optimizer = autoencoder_optimizer
        self.discriminator_optimizer = discriminator_optimizer

    def players(self) -> dict[str, Player]:
        """The discriminator, then encoder and decoder."""
        return {
            "discriminator": Player([self.discriminator], self.discriminator_optimizer),
            "autoencoder": Player(
                [self.decoder, self.encoder]
                + ([] if self.theta is None else [nn.ParameterList([self.theta])]),
                self.autoencoder_optimizer,
            ),
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
        share = 0.5 if self.discriminate_reconstructions else 0.0
        loss = share * self.adversarial_loss.discriminator(real_logits, recoded_logits) + (
            1 - share
        ) * self.adversarial_loss.discriminator(real_logits, prior_logits)
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
        share = 0.5 if self.discriminate_reconstructions else 0.0
        adversarial = share * self.adversarial_loss.generator(self.discriminator(recoded)) + (
            1 - share
        ) * self.adversarial_loss.generator(self.discriminator(prior))
        self.track("train/rate", kl)
        self.track("train/feature_distance", distance)
        self.track("train/adversarial", adversarial)
        return self.kl_weight * kl + distance + adversarial / self.gamma

    def feature_distance(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """-log N(D_l(x) | D_l(x~), I) without its constant, (N,): L_llike, eq. 7."""
        with torch.no_grad():
            targets = self.discriminator.features(images)
        features = self.discriminator.features(reconstructions)
        pairs = list(enumerate(zip(features, targets, strict=True)))
        if self.feature_stages == "one":
            pairs = [pairs[self.feature_stage]]
        if self.pixel_weight:
            pairs.append((7, (reconstructions, images)))
        total: Tensor = torch.zeros((), device=images.device)
        for stage, (feature, target) in pairs:
            error = (feature.float() - target.float()).square()
            weight = self.pixel_weight if stage == 7 else 1.0
            if self.feature_noise == "unit":
                nll = 0.5 * error
            elif self.feature_noise == "batch":
                axes = (0, 2, 3) if self.per_channel and error.ndim == 4 else None
                if axes is None and self.per_channel:
                    axes = 0
                mse = error.detach() if axes is None else error.detach()
                mse = mse.mean() if axes is None else mse.mean(axes, keepdim=True)
                mse = mse + 1e-12
                nll = 0.5 * (error / mse + mse.log())
            else:
                assert self.theta is not None
                log_sigma = self.sigma_speed * self.theta[stage]
                nll = 0.5 * error * (-2 * log_sigma).exp() + log_sigma
                self.track(f"log_sigma/{stage}", log_sigma)
            if self.at_most_pixels:
                weight *= min(1.0, images[0].numel() / error[0].numel())
            self.track(f"feature_mse/{stage}", error.mean())
            total = total + weight * nll.flatten(1).sum(1)
        return total

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
