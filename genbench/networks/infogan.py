"""The InfoGAN network, with which GANs and VAEs have been compared most often.

Chen et al. 2016, https://arxiv.org/abs/1606.03657, in the form of Lucic et al. 2018, https://arxiv.org/abs/1711.10337: two
convolutions and a wide linear layer, and the mirror image for the decoder. Nearly all of its
parameters are in the linear layers. Images of any size that 4 divides; initialised as DCGAN.
"""

from typing import Literal

from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.networks.layout import like
from genbench.ranges import whole

SLOPE = 0.2
WIDE = 16  # units of the linear layer, in widths

Norm = Literal["batch", "none"]


def _base(image_size: int) -> int:
    if image_size < 4 or image_size % 4:
        raise UserMistake(
            f"network=infogan halves images twice, and {image_size} pixels a side cannot be: choose a "
            "dataset.image_size that 4 divides, or network=conv or mlp"
        )
    return image_size // 4


def _norm(norm: Norm, features: int, flat: bool) -> list[nn.Module]:
    if norm not in ("batch", "none"):
        raise UserMistake(f"norm={norm!r} is not one of batch, none")
    if norm == "none":
        return []
    return [nn.BatchNorm1d(features) if flat else nn.BatchNorm2d(features)]


def _initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02), scales N(1, 0.02), biases 0: Radford et al. 2016."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class InfoGANTrunk(nn.Module):
    """Images to features: shared architecture of encoder and discriminator."""

    def __init__(
        self, image_size: int, channels: int, width: int = 64, norm: Norm = "none"
    ) -> None:
        super().__init__()
        whole("network.width", width)
        base, first, second, wide = _base(image_size), width, 2 * width, WIDE * width
        self.feature_dim = wide
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(channels, first, 4, 2, 1), nn.LeakyReLU(SLOPE)),
                nn.Sequential(
                    nn.Conv2d(first, second, 4, 2, 1),
                    *_norm(norm, second, False),
                    nn.LeakyReLU(SLOPE),
                ),
                nn.Sequential(
                    nn.Linear(second * base**2, wide), *_norm(norm, wide, True), nn.LeakyReLU(SLOPE)
                ),
            ]
        )
        self.apply(_initialise)

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of the three stages: (N, W, S/2, S/2), (N, 2 W, S/4, S/4), (N, 16 W) for width W."""
        first = self.stages[0](images)
        second = self.stages[1](first)
        return [first, second, self.stages[2](like(self.stages[1], second).flatten(1))]

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, S, S) to (N, feature_dim)."""
        return self.features(images)[-1]

    def head(self, outputs: int) -> nn.Linear:
        """A linear layer for these features, initialised like the trunk."""
        head = nn.Linear(self.feature_dim, outputs)
        _initialise(head)
        return head


class InfoGANDecoder(nn.Module):
    """Latents to unbounded images: the decoder of a VAE and the generator of a GAN."""

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent_dim: int,
        width: int = 64,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        whole("network.width", width)
        whole("arena.latent_dim", latent_dim)
        base, first, second, wide = _base(image_size), width, 2 * width, WIDE * width
        flat = second * base**2
        self.begin = nn.Sequential(
            nn.Linear(latent_dim, wide),
            *_norm(norm, wide, True),
            nn.LeakyReLU(SLOPE),
            nn.Linear(wide, flat),
            *_norm(norm, flat, True),
            nn.LeakyReLU(SLOPE),
            nn.Unflatten(1, (second, base, base)),
        )
        self.end = nn.Sequential(
            nn.ConvTranspose2d(second, first, 4, 2, 1),
            *_norm(norm, first, False),
            nn.LeakyReLU(SLOPE),
            nn.ConvTranspose2d(first, channels, 4, 2, 1),
        )
        self.latent_dim = latent_dim
        self.apply(_initialise)

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_dim) to unbounded (N, C, S, S)."""
        images: Tensor = self.end(like(self.end, self.begin(z)))
        return images
