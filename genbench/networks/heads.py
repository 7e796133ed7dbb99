"""A trunk with a head: the encoder of a VAE or the discriminator of a GAN."""

from typing import Protocol

from torch import Tensor, nn


class Trunk(Protocol):
    """A network from images to features that can build heads for them."""

    feature_dim: int

    def __call__(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, feature_dim)."""
        ...

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage, first to last."""
        ...

    def head(self, outputs: int) -> nn.Linear:
        """A linear layer from the features to `outputs` values."""
        ...


class GaussianEncoder(nn.Module):
    """Images to the mean and log variance of q(z | x)."""

    def __init__(self, trunk: Trunk, latent_dim: int) -> None:
        super().__init__()
        self.trunk, self.head = trunk, trunk.head(2 * latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to mu and logvar, (N, latent_dim) each, in float32."""
        mu, logvar = self.head(self.trunk(images)).float().chunk(2, dim=1)
        return mu, logvar


class Discriminator(nn.Module):
    """Images to a logit, high for real."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk, self.head = trunk, trunk.head(1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits (N,) in float32."""
        logits: Tensor = self.head(self.trunk(images)).float().squeeze(1)
        return logits

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage of the trunk."""
        return self.trunk.features(images)
