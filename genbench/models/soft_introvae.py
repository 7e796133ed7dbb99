"""Soft-IntroVAE, Daniel and Tamar 2021, https://arxiv.org/abs/2012.13253, eq. 5 and algorithm 1.

An encoder that is its own discriminator: it gives real images a high evidence bound and generated ones a low
one, by a soft bound of both. With L(x) = beta_rec |x - D(z)|^2 / 2 and s = 1 / (values of an image)

    encoder <-  s (L(x) + KL(x)) + 1/4 sum over fakes of E exp(-2 s (L(fake) + beta_neg KL(fake)))
    decoder <-  s (L(x) + 1/2 sum over fakes of (KL(fake) + 1e-8 L(fake)))

where the fakes are the reconstruction D(z) and a draw D(z_p) from the prior. In the encoder's loss they
are given; in the decoder's loss of them the images that are rebuilt are. The published scores were taken in
training mode; here as for every model in eval mode.

Departures: the decoder's move encodes the images anew by the encoder that has just moved, where the authors
keep the z of before; L has the factor of a Gaussian of variance 1, which their weight beta_rec may take up.
beta_neg is for 64 values of an image: a difference of bounds is divided by their number.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genbench.losses.variational import kl_to_standard_normal, reparameterize
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.models.symptoms import Symptom, latents_are_not_used
from genbench.networks.conditional import given
from genbench.ranges import number

REGULAR = 1e-8  # gamma_r: of the error of fakes in the decoder's loss


class SoftIntroVAE(GenerativeModel):
    """Two players: the encoder, then the decoder. It has a posterior, and no bound of its own."""

    counted = "decoder"

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        latent_dim: int,
        beta_rec: float,
        beta_kl: float,
        beta_neg: float,
        encoder_optimizer: MakeOptimizer,
        decoder_optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        for name, value in (("rec", beta_rec), ("kl", beta_kl), ("neg", beta_neg)):
            number(f"model.beta_{name}", value)
        self.decoder, self.encoder, self.latent_dim = decoder, encoder, latent_dim
        self.beta_rec, self.beta_kl, self.beta_neg = beta_rec, beta_kl, beta_neg
        self.encoder_optimizer, self.decoder_optimizer = encoder_optimizer, decoder_optimizer

    def players(self) -> dict[str, Player]:
        """The encoder, then the decoder."""
        return {
            "encoder": Player([self.encoder], self.encoder_optimizer),
            "decoder": Player([self.decoder], self.decoder_optimizer),
        }

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Four draws: of the images' codes, of the prior, and of the codes of either fake.

        All fakes have the labels of the images.
        """
        noise = [self.noise(len(images), self.latent_dim) for _ in range(4)]
        yield Move("encoder", lambda: self.encoder_loss(images, *noise, labels=labels))
        yield Move("decoder", lambda: self.decoder_loss(images, *noise, labels=labels))

    def encoder_loss(
        self,
        images: Tensor,
        noise: Tensor,
        prior: Tensor,
        *of_fakes: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """A high bound for images, and a soft penalty on that of fakes."""
        scale, told = 1 / images[0].numel(), given(labels)
        mu, logvar = self.posterior(images, *told)
        rebuilt = self.sample(reparameterize(mu, logvar, noise), *told)
        error, rate = self.error(images, rebuilt), kl_to_standard_normal(mu, logvar)
        loss = scale * (error + self.beta_kl * rate).mean()
        self.track("train/rate", rate.mean())
        self.track("train/error", error.mean())
        fakes = {"rebuilt": rebuilt.detach(), "prior": self.sample(prior, *told).detach()}
        for (kind, fake), draw in zip(fakes.items(), of_fakes, strict=True):
            fake_mu, fake_logvar = self.posterior(fake, *told)
            again = self.sample(reparameterize(fake_mu, fake_logvar, draw), *told)
            fake_rate = kl_to_standard_normal(fake_mu, fake_logvar)
            bound = self.error(fake, again) + self.beta_neg * fake_rate
            loss = loss + 0.25 * (-2 * scale * bound).exp().mean()
            self.track(f"train/rate_{kind}", fake_rate.mean())
        return loss

    def decoder_loss(
        self,
        images: Tensor,
        noise: Tensor,
        prior: Tensor,
        *of_fakes: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """A small error on images, and a high bound for fakes."""
        scale, told = 1 / images[0].numel(), given(labels)
        with torch.no_grad():
            z = reparameterize(*self.posterior(images, *told), noise)
        rebuilt = self.sample(z, *told)
        loss = self.error(images, rebuilt).mean()
        for fake, draw in zip((rebuilt, self.sample(prior, *told)), of_fakes, strict=True):
            mu, logvar = self.posterior(fake, *told)
            again = self.sample(reparameterize(mu, logvar, draw).detach(), *told)
            rate = kl_to_standard_normal(mu, logvar)
            error = REGULAR * self.error(fake.detach(), again)
            loss = loss + 0.5 * (self.beta_kl * rate + error).mean()
        return scale * loss

    def error(self, images: Tensor, rebuilt: Tensor) -> Tensor:
        """L: beta_rec |x - x~|^2 / 2, (N,)."""
        return 0.5 * self.beta_rec * (images - rebuilt).square().flatten(1).sum(1)

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), or of q(z|x, y) with labels."""
        mu, logvar = self.encoder(images, *given(labels))
        return mu, logvar

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decode latents; tanh bounds the image."""
        return torch.tanh(self.decoder(z, *given(labels)))

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decode the posterior's mean."""
        return self.sample(self.posterior(images, *given(labels))[0], *given(labels))

    def symptoms(self) -> Sequence[Symptom]:
        """The posterior has collapsed."""
        return latents_are_not_used("train/rate")
