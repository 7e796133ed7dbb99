"""Binarisation of grey images: a pixel is 1 with the probability of its grey value.

Salakhutdinov and Murray 2008, "On the quantitative analysis of deep belief networks". Static: drawn
once for every picture. Dynamic: drawn anew whenever a picture is shown in training (Burda et al.
2016), while scores use the static draw. Draws come from a hash of (picture, pixel) or of (seed,
position, pixel), so that they do not depend on any generator, order, device or library version.
"""

from functools import cache

import torch
from torch import Tensor

from genbench.errors import UserMistake

KINDS = ("static", "dynamic")

GREY_LEVELS = 256

STATIC_SEED, STATIC_KEY = 1_312, 2_718  # of the static draw; its definition, never changed

DYNAMIC_KEY = 2_718  # makes the draws independent of permutations and flips of the same seed

GOLDEN = 0x9E3779B97F4A7C15  # increment of splitmix64: 2^64 / golden ratio


def check(kind: str | None, levels: int) -> None:
    """Refuse an unknown kind, or levels other than 2 with binarisation. Raises UserMistake."""
    if kind is None:
        return
    if kind not in KINDS:
        raise UserMistake(f"dataset.binarize={kind!r} is not one of {', '.join(KINDS)}, null")
    if levels != 2:
        raise UserMistake(f"dataset.binarize={kind} makes 2 levels: set dataset.levels=2")


def binarized(pixels: Tensor, keys: Tensor) -> Tensor:
    """Draw 0 or 1 for pixels (N, C, H, W) uint8 of 256 levels; `keys` (N,) int64 choose the draws."""
    drawn = thresholds(keys, pixels[0].numel()).view_as(pixels)
    return (drawn < pixels).to(torch.uint8)


def static_keys(numbers: Tensor) -> Tensor:
    """Keys of the static draw of pictures by their numbers in the source: int64 (N,)."""
    return _mixed(numbers.long() * _signed(GOLDEN) + _signed(STATIC_SEED * GOLDEN + STATIC_KEY))


def dynamic_keys(seed: int, positions: Tensor) -> Tensor:
    """Keys of draws at positions of the training stream: int64 (N,).

    The seed is mixed before positions are added: with a sum of both, position 1 of seed 0 would have
    the draws of position 0 of seed 1.
    """
    return _mixed(positions.long() * _signed(GOLDEN) + _mixed_seed(seed))


@cache
def _mixed_seed(seed: int) -> int:
    return int(_mixed(torch.tensor(_signed(seed * GOLDEN + DYNAMIC_KEY))))


def thresholds(keys: Tensor, columns: int) -> Tensor:
    """Draw 0 .. 254 uniformly for every (key, column): (N, columns) uint8.

    By splitmix64 (Steele et al. 2014). A grey value v is greater than v of these 255 thresholds, so
    that the pixel is 1 with probability v / 255.
    """
    column = torch.arange(1, columns + 1, device=keys.device)
    bits = _mixed(keys[:, None] + column * _signed(GOLDEN)) & 0xFFFFFFFF
    return ((bits * (GREY_LEVELS - 1)) >> 32).to(torch.uint8)


def _mixed(x: Tensor) -> Tensor:
    """The finalizer of splitmix64, on int64 with wrap-around."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Logical (unsigned) right shift of int64."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    """The int64 with these 64 bits."""
    value %= 1 << 64
    return value - (1 << 64) if value >= 1 << 63 else value
