"""A trunk with a head: the encoder of a VAE or the discriminator of a GAN."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

LARGEST_LOGVAR = 8.0  # of a posterior, before it is bent down
_NORMED = (nn.Linear, nn.Conv2d, nn.Embedding)  # layers that get spectral norm


class Trunk(Protocol):
    """A network from images to features that can build heads for them."""

    feature_dim: int

    def __call__(self, images: Tensor, *labels: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, feature_dim); labels only if it knows them (`conditional`)."""
        ...

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage, first to last."""
        ...

    def head(self, outputs: int) -> nn.Linear:
        """A linear layer from the features to `outputs` values."""
        ...


def bent(logvar: Tensor) -> Tensor:
    """The log variance, which grows as a logarithm from 8 on; below that it is what it was, to the bit.

    One step of Adam moves the output of a layer by its number of inputs times the learning rate. Without
    a bound a log variance of 80 makes a rate of 1e34 nats, whose square Adam cannot hold: every weight
    of the encoder then stands still for good, and nothing is NaN.
    """
    excess = (logvar - LARGEST_LOGVAR).clamp_min(0)
    return logvar - excess + excess.log1p()


class GaussianEncoder(nn.Module):
    """Images to the mean and log variance of q(z | x)."""

    def __init__(self, trunk: Trunk, latent_dim: int) -> None:
        super().__init__()
        self.trunk, self.head = trunk, trunk.head(2 * latent_dim)

    def forward(self, images: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to mu and logvar, (N, latent_dim) each, in float32; labels are for the trunk."""
        mu, logvar = self.head(self.trunk(images, *labels)).float().chunk(2, dim=1)
        return mu, bent(logvar)


class Discriminator(nn.Module):
    """Images to a logit, high for real."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk, self.head = trunk, trunk.head(1)

    def forward(self, images: Tensor, *labels: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits (N,) in float32; labels are for the head."""
        logits: Tensor = self.head(self.trunk(images), *labels).float().squeeze(1)
        return logits

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage of the trunk."""
        return self.trunk.features(images)


class SpectralDiscriminator(Discriminator):
    """A discriminator all of whose layers have spectral norm, whatever the network: Miyato et al. 2018.

    https://arxiv.org/abs/1802.05957: every weight is divided by its largest singular value, which one
    power iteration per forward in training follows. Layers that have it already are left as they are.
    """

    def __init__(self, trunk: Trunk) -> None:
        super().__init__(trunk)
        for layer in [*self.modules()]:
            if isinstance(layer, _NORMED) and not parametrize.is_parametrized(layer):
                spectral_norm(layer)


class SlicingDiscriminator(nn.Module):
    """Images to a logit <omega, h(x)> with |omega| = 1: Takida et al. 2024, section 5 (SAN).

    https://arxiv.org/abs/2301.12811. As in the authors' code h keeps the norm of the last layer as its scale,
    and its bias.
    """

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk, self.head = trunk, trunk.head(1)

    def forward(self, images: Tensor, *labels: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits (N,) in float32."""
        hidden, direction, bias = self._parts(images, *labels)
        return _product(hidden, direction) + bias

    def apart(self, images: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        """The logits twice, (N,) each: with a gradient to h alone, and with one to omega alone."""
        hidden, direction, bias = self._parts(images, *labels)
        return _product(hidden, direction.detach()) + bias, _product(hidden.detach(), direction)

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage of the trunk."""
        return self.trunk.features(images)

    def _parts(self, images: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features h (N, d), the direction omega (d,) or with labels (N, d), and the bias, in float32."""
        features = self.trunk(images).float()
        with torch.autocast(features.device.type, enabled=False):
            weight = self.head.weight[0].float()
            if isinstance(self.head, nn.Linear):
                hidden = features * torch.linalg.vector_norm(weight)
                return hidden, F.normalize(weight, dim=0), self.head.bias[0].float()
            # a label has a direction of its own
            weight = weight + self.head.projected(*(labels or (None,)), features).float()
            hidden = features * torch.linalg.vector_norm(weight, dim=1, keepdim=True)
            return hidden, F.normalize(weight, dim=1), self.head.bias[0].float()


def _product(hidden: Tensor, direction: Tensor) -> Tensor:
    """<omega, h> for features (N, d) and one direction (d,), or one for each (N, d)."""
    return hidden @ direction if direction.ndim == 1 else (hidden * direction).sum(1)


class PointEncoder(nn.Module):
    """Images to one latent each: the encoder of a deterministic autoencoder."""

    def __init__(self, trunk: Trunk, latent_dim: int) -> None:
        super().__init__()
        self.trunk, self.head = trunk, trunk.head(latent_dim)

    def forward(self, images: Tensor, *labels: Tensor) -> Tensor:
        """Map (N, C, H, W) to latents (N, latent_dim) in float32; labels are for the trunk."""
        latents: Tensor = self.head(self.trunk(images, *labels)).float()
        return latents
