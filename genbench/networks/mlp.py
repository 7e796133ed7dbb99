"""Fully connected networks, for small images: the default for 8 x 8 and 28 x 28 pixels."""

from itertools import pairwise

from torch import Tensor, nn

from genbench.ranges import whole


class MLPTrunk(nn.Module):
    """Images to features: shared architecture of encoder and discriminator."""

    def __init__(self, image_size: int, channels: int, width: int, depth: int) -> None:
        super().__init__()
        whole("network.width", width)
        whole("network.depth", depth)
        widths = [channels * image_size**2] + [width] * depth
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.LeakyReLU(0.2))
            for before, after in pairwise(widths)
        )
        self.feature_dim = width

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage, (N, width) each."""
        hidden, activations = images.flatten(1), []
        for stage in self.stages:
            hidden = stage(hidden)
            activations.append(hidden)
        return activations

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, feature_dim)."""
        return self.features(images)[-1]

    def head(self, outputs: int) -> nn.Linear:
        """A linear layer for these features, with PyTorch's initialisation like the trunk."""
        return nn.Linear(self.feature_dim, outputs)


class MLPDecoder(nn.Module):
    """Latents to unbounded images: the decoder of a VAE and the generator of a GAN."""

    def __init__(
        self, image_size: int, channels: int, latent_dim: int, width: int, depth: int
    ) -> None:
        super().__init__()
        whole("network.width", width)
        whole("network.depth", depth)
        whole("arena.latent_dim", latent_dim)
        layers: list[nn.Module] = []
        for before, after in pairwise([latent_dim] + [width] * depth):
            layers += [nn.Linear(before, after), nn.ReLU()]
        layers += [
            nn.Linear(width, channels * image_size**2),
            nn.Unflatten(1, (channels, image_size, image_size)),
        ]
        self.layers = nn.Sequential(*layers)
        self.latent_dim = latent_dim

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_dim) to unbounded (N, C, H, W)."""
        images: Tensor = self.layers(z)
        return images


class LatentDiscriminator(nn.Module):
    """Latents to a logit, high for the prior's: the judge of an adversarial autoencoder."""

    def __init__(self, latent_dim: int, width: int, depth: int) -> None:
        super().__init__()
        whole("discriminator.width", width)
        whole("discriminator.depth", depth)
        layers: list[nn.Module] = []
        for before, after in pairwise([latent_dim] + [width] * depth):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_dim) to logits (N,) in float32."""
        logits: Tensor = self.layers(z).float().squeeze(1)
        return logits
