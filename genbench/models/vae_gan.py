"""VAE-GAN, Larsen et al. 2016, https://arxiv.org/abs/1512.09300, algorithm 1.

The paper's three updates are

    encoder       <-  L_prior + L_llike
    decoder       <-  gamma * L_llike - L_GAN
    discriminator <-  L_GAN

Adam does not see the scale of a loss, so the decoder may as well descend L_llike - L_GAN / gamma, and
one optimizer serves encoder and decoder: L_prior + L_llike - L_GAN / gamma, where L_GAN decodes a
detached z and so never reaches the encoder. This holds without weight decay and without clipping of
the two gradients' joint norm.

Departures, each with its reason (figures in docs/log.md):

- L_llike is a Gaussian of *learned* variance (`FeatureGaussian`; sigma-VAE, Rybkin et al. 2021,
  https://arxiv.org/abs/2006.13202). The paper's has variance 1, which fits the features of its
  BatchNorm. Under R1 and without norm they are so small that L_llike is a few nats, the KL wins, and
  the encoder dies. `feature_likelihood=None` is the paper's.
- Only samples of the prior are fakes (`discriminate_reconstructions=False`), as in the authors' code for
  CelebA (https://github.com/andersbll/autoencoding_beyond_pixels, `discriminate_ae_recon`). In the
  paper's L_GAN reconstructions are fakes too; here half of L_GAN's weight, so that gamma means the same.
- The discriminator has R1 (Mescheder et al. 2018) in place of BatchNorm, and no player ever pauses, as
  the authors' code has it.
- The decoder's part of L_GAN is any adversarial loss, non-saturating (Goodfellow et al. 2014) by default.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.losses.adversarial import AdversarialLoss
from genbench.losses.likelihood import FeatureGaussian
from genbench.losses.penalty import zero_centered
from genbench.losses.variational import kl_to_standard_normal, reparameterize
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, discriminator_has_won, latents_are_not_used
from genbench.networks.conditional import given, knowing
from genbench.networks.heads import Discriminator
from genbench.ranges import number, whole


def _mean(losses: Iterable[Tensor]) -> Tensor:
    each = [*losses]
    return torch.stack(each).sum() / len(each)


class VAEGAN(GenerativeModel):
    """A VAE whose reconstruction error is measured in its own discriminator.

    It has a posterior but no pixel likelihood, so it offers no `elbo`. The defaults of the last two
    arguments are what runs have whose config does not name them.
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
        discriminate_reconstructions: bool = True,
    ) -> None:
        super().__init__()
        number("model.gamma", gamma)
        number("model.r1_gamma", r1_gamma)
        whole("model.feature_stage", feature_stage, None)
        self.decoder, self.encoder, self.discriminator = decoder, encoder, discriminator
        self.adversarial_loss, self.latent_dim = adversarial_loss, latent_dim
        self.gamma, self.feature_stage, self.r1_gamma = gamma, feature_stage, r1_gamma
        self.feature_likelihood = feature_likelihood
        self.discriminate_reconstructions = discriminate_reconstructions
        self.has_gradient_penalty = bool(r1_gamma)
        self.autoencoder_optimizer = autoencoder_optimizer
        self.discriminator_optimizer = discriminator_optimizer

    def players(self) -> dict[str, Player]:
        """The discriminator, then encoder and decoder."""
        autoencoder = [self.decoder, self.encoder, self.feature_likelihood]
        return {
            "discriminator": Player([self.discriminator], self.discriminator_optimizer),
            "autoencoder": Player([*filter(None, autoencoder)], self.autoencoder_optimizer),
        }

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Both players meet the same fakes."""
        mu, logvar = self.posterior(images, *given(labels))
        z = reparameterize(mu, logvar, self.noise(len(images), self.latent_dim))
        fakes = {}  # with the labels of the images
        if self.discriminate_reconstructions:  # z is detached: they lead back to the decoder alone
            fakes["reconstruction"] = self.sample(z.detach(), *given(labels))
        fakes["prior"] = self.sample(self.noise(len(images), self.latent_dim), *given(labels))
        yield Move("discriminator", lambda: self.discriminator_loss(images, fakes, *given(labels)))
        yield Move(
            "autoencoder",
            lambda: self.autoencoder_loss(images, mu, logvar, z, fakes, *given(labels)),
        )

    def discriminator_loss(
        self, real: Tensor, fakes: Mapping[str, Tensor], labels: Tensor | None = None
    ) -> Tensor:
        """-L_GAN, real against the mean over the kinds of fake, with R1 (Mescheder et al. 2018)."""
        discriminator = knowing(self.discriminator, labels)
        real_logits = discriminator(real)
        logits = {kind: discriminator(fake.detach()) for kind, fake in fakes.items()}
        for kind, value in ({"real": real_logits} | logits).items():
            self.track(f"logit/{kind}", value.mean())
        loss = _mean(self.adversarial_loss.discriminator(real_logits, x) for x in logits.values())
        self.track("adversarial/discriminator", loss)
        if self.r1_gamma:
            loss = loss + self.r1_gamma * zero_centered(discriminator, real)
        return loss

    def autoencoder_loss(
        self,
        images: Tensor,
        mu: Tensor,
        logvar: Tensor,
        z: Tensor,
        fakes: Mapping[str, Tensor],
        labels: Tensor | None = None,
    ) -> Tensor:
        """L_prior + L_llike + adversarial / gamma."""
        discriminator = knowing(self.discriminator, labels)
        kl = kl_to_standard_normal(mu, logvar).mean()
        distance = self.feature_distance(images, self.sample(z, *given(labels))).mean()
        adversarial = _mean(
            self.adversarial_loss.generator(discriminator(fake), lambda: discriminator(images))
            for fake in fakes.values()
        )
        self.track("train/rate", kl)
        self.track("train/feature_distance", distance)
        self.track("train/adversarial", adversarial)
        return kl + distance + adversarial / self.gamma

    def feature_distance(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """L_llike, eq. 7: -log N(D_l(x) | D_l(x~), sigma^2 I), for sigma = 1 without its constant, (N,)."""
        with torch.no_grad():
            target = self._features(images)
        features = self._features(reconstructions)
        if self.feature_likelihood is None:
            return 0.5 * (features - target).square().flatten(1).sum(1)
        self.track("train/feature_sigma", self.feature_likelihood.log_sigma.exp())
        return -self.feature_likelihood.log_prob(target, features, images[0].numel())

    def _features(self, images: Tensor) -> Tensor:
        """D_l of images, in float32."""
        stages = self.discriminator.features(images)
        if not -len(stages) <= self.feature_stage < len(stages):
            raise UserMistake(
                f"model.feature_stage={self.feature_stage}: this discriminator has {len(stages)} stages, choose "
                f"from {-len(stages)} to {len(stages) - 1}"
            )
        return stages[self.feature_stage].float()

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), or of q(z|x, y) with labels."""
        mu, logvar = self.encoder(images, *given(labels))
        return mu, logvar

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decode latents; tanh bounds the image."""
        return torch.tanh(self.decoder(z, *given(labels)))

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decode the posterior's mean."""
        return self.sample(self.posterior(images, labels)[0], *given(labels))

    def symptoms(self) -> Sequence[Symptom]:
        """The discriminator has won, or the posterior has collapsed."""
        won = discriminator_has_won(self.adversarial_loss, "adversarial/discriminator")
        return (*won, *latents_are_not_used("train/rate"))
