"""Residual networks after Miyato et al. 2018, https://arxiv.org/abs/1802.05957 (appendix B.4).

Decoder and trunk have one plan: stages halve the image (rounding up) while it has 8 pixels or more a
side, 32 -> 16 -> 8 -> 4 and 45 -> 23 -> 12 -> 6, for images of 32 to 256 pixels. Stage i has
width * min(2^i, 8) channels in the trunk, and the decoder mirrors it. A stage is one residual block whose
activations precede its convolutions (He et al. 2016), with a 1 x 1 convolution on its shortcut; the trunk
halves by mean pooling, the decoder doubles by repeating pixels. Either may have self-attention at one
resolution (Zhang et al. 2019, SAGAN, https://arxiv.org/abs/1805.08318).

Departures from Miyato et al.: every stage of the trunk halves; a head sees all positions of the last
stage, not their sum, because a posterior needs to know where something is; the trunk's ReLUs are leaky
(0.2), as in the conv network.

Weights are drawn so that a signal keeps its mean square (He et al. 2015): gain sqrt(2 / (1 + slope^2))
behind a ReLU, and half of a block's variance from either of its paths. Biases begin at 0. The decoder's last
convolution begins at a tenth, so that the first images are nearly grey: else a VAE has to unlearn noise first.
"""

import math
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from genbench.errors import UserMistake
from genbench.networks.layout import like

Norm = Literal["batch", "group", "spectral", "none"]
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)
SMALLEST, LARGEST = 32, 256  # pixels a side
SLOPE = 0.2  # of the trunk's ReLUs below 0
HALF = math.sqrt(0.5)  # gain of each of the two paths that a block adds
FAINT = 0.1  # gain of the convolution that makes the images


def stage_sizes(image_size: int) -> list[int]:
    """Image sizes before, between and after the stages: from `image_size` down to 4 .. 7 pixels.

    Raises UserMistake for sizes outside of 32 .. 256.
    """
    if not SMALLEST <= image_size <= LARGEST:
        raise UserMistake(
            f"the resnet takes images of {SMALLEST} to {LARGEST} pixels a side, not {image_size}: "
            "choose another dataset.image_size, or network=conv or mlp"
        )
    sizes = [image_size]
    while sizes[-1] >= 8:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def _plan(image_size: int, width: int, attention: int | None) -> tuple[list[int], list[int]]:
    """Sizes and, one fewer, channels of the stages; refuses an attention that would be nowhere."""
    sizes = stage_sizes(image_size)
    if attention is not None and attention not in sizes[1:]:
        raise UserMistake(
            f"network.attention={attention} is no resolution inside the resnet for images of "
            f"{image_size} x {image_size}: choose one of {', '.join(map(str, sizes[1:]))}, or null"
        )
    return sizes, [width * min(2**stage, 8) for stage in range(len(sizes) - 1)]


def _norm(kind: Norm, channels: int) -> list[nn.Module]:
    match kind:
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "group":
            return [nn.GroupNorm(math.gcd(channels, 8), channels)]
        case "spectral" | "none":  # nothing between the layers
            return []


def _check_norm(kind: str, known: tuple[str, ...]) -> None:
    if kind not in known:
        raise UserMistake(f"norm={kind!r} is not one of {', '.join(known)}")


def _initialised(layer: Layer, gain: float, norm: Norm) -> Layer:
    """Draw the weights N(0, gain^2 / inputs); spectral norm begins with their singular vectors."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    if norm == "spectral":
        spectral_norm(layer)
    return layer


def _conv(before: int, after: int, kernel: int, gain: float, norm: Norm = "none") -> nn.Conv2d:
    layer = nn.Conv2d(before, after, kernel, padding=kernel // 2)
    return _initialised(layer, gain, norm)


def _behind(slope: float) -> float:
    """The gain that makes up for a leaky ReLU: He et al. 2015, eq. 15."""
    return math.sqrt(2 / (1 + slope**2))


class SelfAttention(nn.Module):
    """Every position looks at all others: x + gamma * o, gamma from 0; Zhang et al. 2019, eq. 1 to 3.

    Keys and values are max-pooled by 2, as in the authors' code. Written as products of matrices, because
    PyTorch's fused attention cannot be differentiated twice, as a gradient penalty needs.
    """

    def __init__(self, channels: int, norm: Norm = "none") -> None:
        super().__init__()
        inner, half = max(1, channels // 8), max(1, channels // 2)
        self.query = _conv(channels, inner, 1, 1.0, norm)
        self.key = _conv(channels, inner, 1, 1.0, norm)
        self.value = _conv(channels, half, 1, 1.0, norm)
        self.out = _conv(half, channels, 1, 1.0, norm)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        query = self.query(hidden).flatten(2)
        key = F.max_pool2d(self.key(hidden), 2, ceil_mode=True).flatten(2)
        value = F.max_pool2d(self.value(hidden), 2, ceil_mode=True).flatten(2)
        weights = torch.bmm(query.transpose(1, 2), key).softmax(dim=2)  # beta of eq. 1
        seen = torch.bmm(value, weights.transpose(1, 2)).view(
            hidden.shape[0], -1, *hidden.shape[2:]
        )
        attended: Tensor = hidden + self.gamma * self.out(seen)
        return attended


def _halved(hidden: Tensor) -> Tensor:
    """Means of 2 x 2 positions, of fewer at the end of an odd side."""
    return F.avg_pool2d(hidden, 2, ceil_mode=True, count_include_pad=False)


class _Down(nn.Module):
    """A block of the trunk. The first one sees an image, before which there is nothing to activate."""

    def __init__(self, before: int, after: int, norm: Norm, first: bool) -> None:
        super().__init__()
        gain, inner = _behind(SLOPE), after if first else before
        # in place only where no other path needs the input
        enter = [] if first else [*_norm(norm, before), nn.LeakyReLU(SLOPE)]
        self.branch = nn.Sequential(
            *enter,
            _conv(before, inner, 3, 1.0 if first else gain, norm),
            *_norm(norm, inner),
            nn.LeakyReLU(SLOPE, inplace=True),
            _conv(inner, after, 3, HALF * gain, norm),
        )
        self.shortcut = _conv(before, after, 1, HALF, norm)

    def forward(self, hidden: Tensor) -> Tensor:
        # pooling before a 1 x 1 convolution is the same as after it, and a quarter of the work
        shorter: Tensor = self.shortcut(_halved(hidden))
        return _halved(self.branch(hidden)) + shorter


class ResnetTrunk(nn.Module):
    """Images to features: shared architecture of encoder and discriminator.

    `norm="spectral"` divides every weight, also the head's, by its largest singular value, which
    `torch.nn.utils.parametrizations` follows by one power iteration per forward in training. It is meant
    for discriminators, and for losses without a gradient penalty.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int,
        norm: Norm = "none",
        attention: int | None = None,
    ) -> None:
        super().__init__()
        _check_norm(norm, ("batch", "group", "spectral", "none"))
        sizes, widths = _plan(image_size, width, attention)
        self.norm = norm
        self.stages = nn.ModuleList()
        for stage, (before, after) in enumerate(pairwise([channels, *widths])):
            layers: list[nn.Module] = [_Down(before, after, norm, first=stage == 0)]
            if sizes[stage + 1] == attention:
                layers.append(SelfAttention(after, norm))
            if stage == len(widths) - 1:
                layers += [*_norm(norm, after), nn.LeakyReLU(SLOPE)]
            self.stages.append(nn.Sequential(*layers))
        self.feature_dim = widths[-1] * sizes[-1] ** 2

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage, (N, channels, height, width) each; the last ones rectified."""
        hidden, activations = images, []
        for stage in self.stages:
            hidden = stage(hidden)
            activations.append(hidden)
        return activations

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, feature_dim)."""
        return like(self.stages[-1], self.features(images)[-1]).flatten(1)

    def head(self, outputs: int) -> nn.Linear:
        """A linear layer for these features, which keeps their mean square; normed like the trunk."""
        return _initialised(nn.Linear(self.feature_dim, outputs), 1.0, self.norm)


class _Up(nn.Module):
    """A block of the decoder, to `size` pixels a side."""

    def __init__(self, before: int, after: int, norm: Norm, size: int) -> None:
        super().__init__()
        self.size, gain = size, _behind(0.0)
        self.enter = nn.Sequential(*_norm(norm, before), nn.ReLU())
        self.branch = nn.Sequential(
            _conv(before, after, 3, gain),
            *_norm(norm, after),
            nn.ReLU(inplace=True),
            _conv(after, after, 3, HALF * gain),
        )
        self.shortcut = _conv(before, after, 1, HALF)

    def _doubled(self, hidden: Tensor) -> Tensor:
        """Repeat each position 2 x 2 times, but once at the end of an odd side."""
        return F.interpolate(hidden, scale_factor=2)[..., : self.size, : self.size]

    def forward(self, hidden: Tensor) -> Tensor:
        longer: Tensor = self.branch(self._doubled(self.enter(hidden)))
        return longer + self._doubled(self.shortcut(hidden))


class ResnetDecoder(nn.Module):
    """Latents to unbounded images: the decoder of a VAE and the generator of a GAN.

    Its first layer has a bias for each channel and position, so that z = 0 can become any image.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent_dim: int,
        width: int,
        norm: Norm = "none",
        attention: int | None = None,
    ) -> None:
        super().__init__()
        _check_norm(norm, ("batch", "group", "none"))
        sizes, widths = (plan[::-1] for plan in _plan(image_size, width, attention))
        base = sizes[0]
        self.begin = nn.Sequential(
            _initialised(nn.Linear(latent_dim, widths[0] * base**2), 1.0, "none"),
            nn.Unflatten(1, (widths[0], base, base)),
        )
        self.stages = nn.ModuleList()
        for stage, (before, after) in enumerate(pairwise([*widths, widths[-1]])):
            looks = [SelfAttention(before)] if sizes[stage] == attention else []
            self.stages.append(nn.Sequential(*looks, _Up(before, after, norm, sizes[stage + 1])))
        self.end = nn.Sequential(
            *_norm(norm, widths[-1]),
            nn.ReLU(),
            _conv(widths[-1], channels, 3, FAINT * _behind(0.0)),
        )
        self.latent_dim = latent_dim

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_dim) to unbounded (N, C, H, W)."""
        hidden = like(self.end, self.begin(z))
        for stage in self.stages:
            hidden = stage(hidden)
        images: Tensor = self.end(hidden)
        return images
