"""A small U-Net from noisy images and times to images: Ronneberger et al. 2015, Ho et al. 2020.

https://arxiv.org/abs/1505.04597, https://arxiv.org/abs/2006.11239, appendix B. Stages halve the image
(rounding up) while it has 8 pixels or more a side: 8 -> 4, 28 -> 14 -> 7. Stage i has width * min(2^i, 4)
channels, one block on the way down and one on the way up, and there is no attention.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.ranges import whole

OCTAVES = 6  # of the sines and cosines of a time

LARGEST = 4  # times width: channels of the inner stages


class Block(nn.Module):
    """Two convolutions, each behind a norm over the whole image; the time scales and shifts the second's norm."""

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(1, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
        )
        self.norm = nn.GroupNorm(1, after)
        self.modulation = nn.Linear(embedding, 2 * after)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(after, after, 3, padding=1))
        self.beside = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, images: Tensor, embedding: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H, W) at the embedding (N, E) of a time."""
        scale, shift = self.modulation(embedding)[..., None, None].chunk(2, 1)
        hidden = self.norm(self.first(images)) * (1 + scale) + shift
        found: Tensor = self.beside(images) + self.second(hidden)
        return found


class UNet(nn.Module):
    """Images (N, C, H, W) and times (N,) in [0, 1] to unbounded (N, C, H, W).

    Without a `width` it is the one whose number of parameters is nearest to that of the modules `matching`,
    which are counted and not kept. Raises UserMistake where neither is given.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int | None = None,
        matching: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if width is None:
            if not matching:
                raise UserMistake(
                    "the U-Net has no width: give model.decoder.width, or what to match"
                )
            width = matched_width(image_size, channels, count(matching))
        whole("model.decoder.width", width)
        self.width, self.shape = width, (channels, image_size, image_size)
        sizes = [image_size]
        while sizes[-1] >= 8:
            sizes.append(-(-sizes[-1] // 2))
        self.sizes = sizes
        widths = [width * min(2**stage, LARGEST) for stage in range(len(sizes))]
        embedding = 2 * width
        self.time = nn.Sequential(
            nn.Linear(2 * OCTAVES, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.begin = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            Block(before, after, embedding)
            for before, after in zip([width, *widths], widths, strict=False)
        )
        self.middle = Block(widths[-1], widths[-1], embedding)
        behind = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(
            Block(below + own, own, embedding) for below, own in zip(behind, widths, strict=True)
        )
        self.end = nn.Sequential(
            nn.GroupNorm(1, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)
        )

    def forward(self, images: Tensor, t: Tensor) -> Tensor:
        """See the class."""
        octaves = 2.0 ** torch.arange(OCTAVES, device=t.device) * math.pi / 2
        angles = t.flatten()[:, None] * octaves
        embedding = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        hidden, kept = self.begin(images), []
        for stage, block in enumerate(self.down):
            if stage:
                hidden = F.avg_pool2d(hidden, 2, ceil_mode=True)
            hidden = block(hidden, embedding)
            kept.append(hidden)
        hidden = self.middle(hidden, embedding)
        for stage in reversed(range(len(self.sizes))):
            if hidden.shape[-1] != self.sizes[stage]:
                hidden = F.interpolate(hidden, size=(self.sizes[stage],) * 2, mode="nearest")
            hidden = self.up[stage](torch.cat([hidden, kept[stage]], 1), embedding)
        found: Tensor = self.end(hidden)
        return found


def count(modules: Sequence[nn.Module]) -> int:
    """Parameters of all modules."""
    return sum(p.numel() for module in modules for p in module.parameters())


def matched_width(image_size: int, channels: int, parameters: int) -> int:
    """The width whose U-Net has the number of parameters nearest to `parameters`."""

    def has(width: int) -> int:
        with torch.device("meta"):
            return count([UNet(image_size, channels, width)])

    high = 2
    while has(high) < parameters:
        high *= 2
    low = 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if has(middle) < parameters else (low, middle)
    return min(low, high, key=lambda width: abs(has(width) - parameters))
