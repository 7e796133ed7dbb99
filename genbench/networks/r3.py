"""Grouped residual stages without norm: the networks of R3GAN, Huang et al. 2024, section 3 and appendix A.

https://arxiv.org/abs/2501.05441. Decoder and trunk have one plan: stages halve the image (rounding up)
while it has 8 pixels or more a side, for images of 8 to 256 pixels: 32 -> 16 -> 8 -> 4. A stage is a change of
resolution, by the filter [1, 2, 1] along both sides, with a 1 x 1 convolution where the channels change, and `blocks` inverted bottlenecks (ResNeXt, Xie et al. 2017; Sandler et al. 2018):

    x + W3 a(W2 a(W1 x)),    W1: C -> 2 C, 1 x 1;    W2: 3 x 3 in groups;    W3: 2 C -> C, 1 x 1

with a a leaky ReLU behind a bias, the only ones. Without norm the variance is kept by the initialisation
(Fixup, Zhang et al. 2019, https://arxiv.org/abs/1901.09321): W3 begins at 0, W1 and W2 with the gain of
the activation times L^(-1/4) for L blocks in the network. A learned 4 x 4 basis, scaled by a linear layer of
the latents, begins the decoder; a depthwise convolution over the last positions ends the trunk.

Departures: `width` is the outermost stage's and doubles inwards up to 8 times, as in the other networks
here, where the paper's inner stages are all alike; the decoder has a bias for each position behind its
basis, so that z = 0 can become any image; the trunk keeps the last stage's channels as features, of which
a head makes its outputs, and a posterior's head has a bias.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.errors import UserMistake
from genbench.networks.layout import like
from genbench.ranges import whole

SMALLEST, LARGEST = 8, 256  # pixels a side
SLOPE = 0.2  # of the leaky ReLUs below 0
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # makes up for one: He et al. 2015, eq. 15
EXPANSION = 2  # channels inside of a block over those outside


def _plan(
    image_size: int, width: int, blocks: int, group_width: int
) -> tuple[list[int], list[int]]:
    """Sizes before, between and after the stages, and the channels of each stage, outermost first."""
    whole("network.width", width)
    whole("network.blocks", blocks)
    whole("network.group_width", group_width)
    if not SMALLEST <= image_size <= LARGEST:
        raise UserMistake(
            f"network=r3 takes images of {SMALLEST} to {LARGEST} pixels a side, not {image_size}: "
            "choose another dataset.image_size, or network=conv or mlp"
        )
    sizes = [image_size]
    while sizes[-1] >= 8:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes, [width * min(2**stage, 8) for stage in range(len(sizes))]


def _conv(before: int, after: int, kernel: int, gain: float, groups: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=False)
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    return layer


class _Activation(nn.Module):
    """A bias for each channel, and a leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.leaky_relu(hidden + self.bias[:, None, None], SLOPE)


class Block(nn.Module):
    """x + W3 a(W2 a(W1 x)) of (N, C, H, W); `depth` blocks are in the network."""

    def __init__(self, channels: int, group_width: int, depth: int) -> None:
        super().__init__()
        inner, gain = EXPANSION * channels, GAIN * depth ** (-1 / 4)
        groups = max(1, inner // math.gcd(group_width, inner))
        self.branch = nn.Sequential(
            _conv(channels, inner, 1, gain),
            _Activation(inner),
            _conv(inner, inner, 3, gain, groups),
            _Activation(inner),
            _conv(inner, channels, 1, 0.0),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        added: Tensor = hidden + self.branch(hidden)
        return added


class _Resampled(nn.Module):
    """Each channel through the filter [1, 2, 1] along both sides, with zeros around the map.

    Convolutions are used for both directions, because they can be differentiated twice, and have
    gradients without chance on a GPU.
    """

    kernel: Tensor

    def __init__(self, total: float) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer(
            "kernel", total * torch.outer(taps, taps)[None, None], persistent=False
        )

    def of(self, hidden: Tensor) -> Tensor:
        """The kernel for each of the map's channels."""
        return self.kernel.to(hidden.dtype).expand(hidden.shape[1], 1, 3, 3)


class Halved(_Resampled):
    """Every other position of the filtered map, the first one kept: H to (H + 1) // 2."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, C, H, W) to half the positions a side."""
        kernel = self.of(hidden)
        return F.conv2d(hidden, kernel, stride=2, padding=1, groups=len(kernel))


class Doubled(_Resampled):
    """Linear interpolation: old positions stay, and between two of them is their mean."""

    def __init__(self, size: int) -> None:
        super().__init__(4.0)
        self.size = size

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, C, H, W) to twice the positions a side, of which the first `size` are kept."""
        kernel, groups = self.of(hidden), hidden.shape[1]
        larger = F.conv_transpose2d(hidden, kernel, None, 2, 1, 1, groups)  # stride, paddings
        return larger[..., : self.size, : self.size]


def _change(before: int, after: int) -> list[nn.Module]:
    return [] if before == after else [_conv(before, after, 1, 1.0)]


class R3Trunk(nn.Module):
    """Images to features: shared architecture of encoder and discriminator."""

    def __init__(
        self, image_size: int, channels: int, width: int, blocks: int, group_width: int
    ) -> None:
        super().__init__()
        sizes, widths = _plan(image_size, width, blocks, group_width)
        depth = blocks * len(widths)
        self.begin = _conv(channels, widths[0], 1, 1.0)
        self.changes = nn.ModuleList(
            nn.Sequential(Halved(), *_change(*pair)) for pair in pairwise(widths)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(own, group_width, depth) for _ in range(blocks)))
            for own in widths
        )
        last, side = widths[-1], sizes[-1]
        self.end = nn.Conv2d(last, last, side, groups=last, bias=False)
        nn.init.normal_(self.end.weight, 0.0, 1 / side)
        self.feature_dim = last

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of every stage, (N, channels, height, width) each; the last ones (N, feature_dim)."""
        hidden, activations = self.begin(images), []
        for number, stage in enumerate(self.stages):
            hidden = stage(hidden)
            activations.append(hidden)
            if number < len(self.changes):
                hidden = self.changes[number](hidden)
        activations[-1] = like(self.end, self.end(hidden)).flatten(1)
        return activations

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, feature_dim)."""
        return self.features(images)[-1]

    def head(self, outputs: int) -> nn.Linear:
        """A linear layer for these features, which keeps their mean square."""
        layer = nn.Linear(self.feature_dim, outputs)
        nn.init.normal_(layer.weight, 0.0, 1 / math.sqrt(self.feature_dim))
        nn.init.zeros_(layer.bias)
        return layer


class R3Decoder(nn.Module):
    """Latents to unbounded images: the decoder of a VAE and the generator of a GAN."""

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent_dim: int,
        width: int,
        blocks: int,
        group_width: int,
    ) -> None:
        super().__init__()
        sizes, widths = (plan[::-1] for plan in _plan(image_size, width, blocks, group_width))
        depth, base = blocks * len(widths), sizes[0]
        self.latent_dim = latent_dim
        self.begin = nn.Linear(latent_dim, widths[0], bias=False)
        nn.init.normal_(self.begin.weight, 0.0, 1 / math.sqrt(latent_dim))
        self.basis = nn.Parameter(torch.randn(widths[0], base, base))
        self.position_bias = nn.Parameter(torch.zeros(widths[0], base, base))
        self.changes = nn.ModuleList(
            nn.Sequential(*_change(before, after), Doubled(size))
            for (before, after), size in zip(pairwise(widths), sizes[1:], strict=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(own, group_width, depth) for _ in range(blocks)))
            for own in widths
        )
        self.end = _conv(widths[-1], channels, 1, 1.0)

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_dim) to unbounded (N, C, H, W)."""
        scale = self.begin(z)[:, :, None, None]
        hidden = like(self.end, self.stages[0](self.basis * scale + self.position_bias))
        for change, stage in zip(self.changes, [*self.stages][1:], strict=True):
            hidden = stage(change(hidden))
        images: Tensor = self.end(hidden)
        return images
