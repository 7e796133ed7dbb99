"""Convolutional networks after DCGAN, Radford et al. 2016, https://arxiv.org/abs/1511.06434.

Stages halve the image (rounding down) while it has 8 pixels or more a side, so that any square size
from 8 on works: 8 -> 4, 28 -> 14 -> 7, 64 -> 32 -> 16 -> 8 -> 4. Stage i has width * min(2^i, 8)
channels. Weights are initialised by N(0, 0.02), biases by 0, norms by N(1, 0.02) and 0. That presumes the
norm of DCGAN, which makes up for a signal that shrinks to a seventh in the first stage; an encoder
without norm begins with weights that keep the signal's mean square instead (He et al. 2015,
https://arxiv.org/abs/1502.01852). A discriminator does not: with it, FD was higher (docs/log.md).
"""

import math
from typing import Literal, get_args

from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.networks.layout import like
from genbench.ranges import whole

Norm = Literal["batch", "group", "none"]
Initialisation = Literal["dcgan", "he"]
SLOPE = 0.2  # of the trunk's ReLUs below 0


def stage_sizes(image_size: int) -> list[int]:
    """Image sizes before, between and after the stages: from `image_size` down to 4 .. 7 pixels.

    Raises UserMistake for sizes outside of 8 .. 1024.
    """
    if not 8 <= image_size <= 1024:
        raise UserMistake(
            f"the conv network takes images of 8 pixels a side or more, not {image_size}: "
            "choose network=mlp or a larger dataset.image_size"
        )
    sizes = [image_size]
    while sizes[-1] >= 8:
        sizes.append(sizes[-1] // 2)
    return sizes


def _check_norm(kind: object) -> None:
    if kind not in get_args(Norm):
        raise UserMistake(f"norm={kind!r} is not one of {', '.join(get_args(Norm))}")


def _channels(width: int, stages: int) -> list[int]:
    return [width * min(2**stage, 8) for stage in range(stages)]


def _norm(kind: Norm, channels: int) -> list[nn.Module]:
    match kind:
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "group":
            return [nn.GroupNorm(min(8, channels // 4) or 1, channels)]
        case "none":
            return []


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def _keep_variance(layer: nn.Conv2d | nn.Linear, gain: float) -> None:
    """N(0, gain^2 / inputs) for weights, 0 for biases."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class ConvTrunk(nn.Module):
    """Images to features: shared architecture of encoder and discriminator.

    `initialisation` is "dcgan" or "he", see above; "he" concerns convolutions and the head.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int,
        norm: Norm = "none",
        initialisation: Initialisation = "dcgan",
    ) -> None:
        super().__init__()
        whole("network.width", width)
        _check_norm(norm)
        if initialisation not in ("dcgan", "he"):
            raise UserMistake(f"initialisation={initialisation!r} is not one of dcgan, he")
        self.initialisation = initialisation
        sizes = stage_sizes(image_size)
        widths = _channels(width, len(sizes) - 1)
        self.stages = nn.ModuleList()
        for stage, (before, after) in enumerate(zip([channels, *widths], widths, strict=False)):
            normed: Norm = norm if stage else "none"  # none in the first stage, as in DCGAN
            convolution = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=normed == "none")
            # in place: no layer before needs its output
            activation = nn.LeakyReLU(SLOPE, inplace=True)
            self.stages.append(nn.Sequential(convolution, *_norm(normed, after), activation))
        self.feature_dim = widths[-1] * sizes[-1] ** 2
        self.apply(_initialise)
        if initialisation == "he":
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    _keep_variance(module, math.sqrt(2 / (1 + SLOPE**2)))

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage, (N, channels, height, width) each."""
        hidden, activations = images, []
        for stage in self.stages:
            hidden = stage(hidden)
            activations.append(hidden)
        return activations

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, feature_dim)."""
        last = self.stages[-1]
        assert isinstance(last, nn.Sequential)
        return like(last[0], self.features(images)[-1]).flatten(1)

    def head(self, outputs: int) -> nn.Linear:
        """A linear layer for these features, initialised like the trunk."""
        head = nn.Linear(self.feature_dim, outputs)
        _initialise(head)
        if self.initialisation == "he":
            _keep_variance(head, 1.0)
        return head


class ConvDecoder(nn.Module):
    """Latents to unbounded images: the decoder of a VAE and the generator of a GAN.

    `position_bias` gives the first layer a bias for each channel and position also where a norm
    follows it, which has one for each channel alone. Without it z = 0 cannot be decoded to an arbitrary
    image, and a VAE spends latents on a constant that its prior does not have (docs/log.md). The
    default, False, is what runs have whose config does not name it.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent_dim: int,
        width: int,
        norm: Norm = "none",
        position_bias: bool = False,
    ) -> None:
        super().__init__()
        whole("network.width", width)
        whole("arena.latent_dim", latent_dim)
        _check_norm(norm)
        sizes = stage_sizes(image_size)[::-1]
        widths = _channels(width, len(sizes) - 1)[::-1]
        bias = position_bias or norm == "none"
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, widths[0] * sizes[0] ** 2, bias=bias),
            nn.Unflatten(1, (widths[0], sizes[0], sizes[0])),
        ]
        for stage, after in enumerate([*widths[1:], channels]):
            last = stage == len(widths) - 1
            # in place, except on the output of `like`, which may be its input
            layers += [*_norm(norm, widths[stage]), nn.ReLU(inplace=norm != "none" or stage > 0)]
            layers.append(
                nn.ConvTranspose2d(
                    widths[stage],
                    after,
                    4,
                    stride=2,
                    padding=1,
                    output_padding=sizes[stage + 1] % 2,
                    bias=last or norm == "none",
                )
            )
        self.layers = nn.Sequential(*layers)
        self.latent_dim = latent_dim
        self.apply(_initialise)

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_dim) to unbounded (N, C, H, W)."""
        begin, stages = self.layers[:2], self.layers[2:]
        first = next(layer for layer in stages if isinstance(layer, nn.ConvTranspose2d))
        images: Tensor = stages(like(first, begin(z)))
        return images
