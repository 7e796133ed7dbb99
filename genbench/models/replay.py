"""Known answers made of real images: as they are, blurred, with kinds missing, with kinds invented.

Nothing is trained. They calibrate the reader of a table: what a score says of a model whose fault is
known.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genbench.data.contract import ImageData, Split
from genbench.data.factors import Factors, matching
from genbench.errors import UserMistake
from genbench.models.contract import GenerativeModel, Move, Player
from genbench.ranges import number, whole

SIDE = 8  # of the images in which kinds are looked for
ROUNDS = 25  # of k-means, which has settled by then
BLOCK = 4096


class Album:
    """Real images of a dataset, or a choice of them, to be drawn by a latent in [0, 1)."""

    def __init__(self, data: ImageData, split: Split, chosen: Tensor | None = None) -> None:
        self.data, self.pixels = data, data.pixels(split)
        self.chosen = torch.arange(len(self.pixels)) if chosen is None else chosen

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, 1): one for each image, in a shuffled order, before any comes again."""
        count = len(self.chosen)
        rounds = [torch.randperm(count, generator=generator) for _ in range(-(-n // count))]
        return ((torch.cat(rounds)[:n] + 0.5) / count).float().unsqueeze(1)

    def images(self, z: Tensor) -> Tensor:
        """Find the images (N, C, H, W) in [-1, 1] of latents (N, 1)."""
        count = len(self.chosen)
        places = (z[:, 0].double().cpu() * count).long().clamp(0, count - 1)
        return self.at(self.chosen[places]).to(z.device)

    def at(self, numbers: Tensor) -> Tensor:
        """Images by their numbers in the split."""
        pixels = torch.from_numpy(self.pixels[numbers.numpy()].copy())
        return self.data.to_images(pixels)


class Replay(GenerativeModel):
    """The images of a split, as they are.

    Of `train` it is the perfect copy that has learned nothing; of `validation` it is what no model
    can beat: new images of the very distribution. `without` leaves out the images that have one of
    these combinations of factors, as in ["shape:square"].
    """

    latent_dim = 1

    def __init__(self, split: Split = "train", without: str | Sequence[str] = ()) -> None:
        super().__init__()
        self.split, self.without = _known(split), without
        self.album: Album | None = None

    def observe(self, data: ImageData) -> None:
        """Keep the images at hand. Raises UserMistake for factors that the data do not have."""
        chosen = None
        if self.without:
            stays = ~matching(
                _factors(data, self.split, "model.without"), self.without, "model.without"
            )
            if not stays.any():
                raise UserMistake(f"model.without={self.without} leaves no {self.split} images")
            chosen = torch.from_numpy(stays.nonzero()[0])
        self.album = Album(data, self.split, chosen)

    def players(self) -> dict[str, Player]:
        """Nobody moves."""
        return {}

    def step(self, images: Tensor) -> Iterator[Move]:
        """No moves: it learns nothing."""
        yield from ()

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw places in a shuffled order."""
        return _opened(self.album).latents(n, generator)

    def sample(self, z: Tensor) -> Tensor:
        """Show the images at these places."""
        return _opened(self.album).images(z)


class Blur(GenerativeModel):
    """Real images under a Gaussian blur, whose width is a share of their side."""

    latent_dim = 1

    def __init__(self, width: float = 0.06, split: Split = "train") -> None:
        super().__init__()
        if width <= 0:
            raise UserMistake(f"model.width={width} is not a share of the side: choose 0.06 or so")
        self.width, self.split = width, _known(split)
        self.album: Album | None = None

    def observe(self, data: ImageData) -> None:
        """Keep the images at hand."""
        self.album = Album(data, self.split)

    def players(self) -> dict[str, Player]:
        """Nobody moves."""
        return {}

    def step(self, images: Tensor) -> Iterator[Move]:
        """No moves: it learns nothing."""
        yield from ()

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw places in a shuffled order."""
        return _opened(self.album).latents(n, generator)

    def sample(self, z: Tensor) -> Tensor:
        """Blur the images at these places."""
        images = _opened(self.album).images(z)
        return gaussian_blur(images, self.width * images.shape[-1])


class ModeDrop(GenerativeModel):
    """Real images of some kinds only: of `kinds` clusters, the `dropped` largest are missing.

    Clusters are those of k-means on images averaged down to 8 x 8; no labels are needed. What is
    left is as good as real, one by one.
    """

    latent_dim = 1

    def __init__(
        self, kinds: int = 10, dropped: int = 3, seed: int = 0, split: Split = "train"
    ) -> None:
        super().__init__()
        if not 0 < dropped < kinds:
            raise UserMistake(
                f"model.dropped={dropped} of model.kinds={kinds}: at least one kind must go and one stay"
            )
        whole("model.seed", seed, 0)
        self.kinds, self.dropped, self.kinds_seed = kinds, dropped, seed
        self.split = _known(split)
        self.album: Album | None = None

    def observe(self, data: ImageData) -> None:
        """Find the kinds, and keep images of those that stay."""
        album = Album(data, self.split)
        numbers = torch.split(album.chosen, BLOCK)
        small = torch.cat([_reduced(album.at(some)) for some in numbers])
        if len(small) < self.kinds:
            raise UserMistake(
                f"model.kinds={self.kinds}, but the {self.split} split of {data.name} has only "
                f"{len(small)} images"
            )
        kind = clusters(small, self.kinds, torch.Generator().manual_seed(self.kinds_seed))
        largest = torch.bincount(kind, minlength=self.kinds).argsort(descending=True, stable=True)
        stays = ~torch.isin(kind, largest[: self.dropped])
        self.album = Album(data, self.split, stays.nonzero()[:, 0])

    def players(self) -> dict[str, Player]:
        """Nobody moves."""
        return {}

    def step(self, images: Tensor) -> Iterator[Move]:
        """No moves: it learns nothing."""
        yield from ()

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw places in a shuffled order."""
        return _opened(self.album).latents(n, generator)

    def sample(self, z: Tensor) -> Tensor:
        """Show the images at these places."""
        return _opened(self.album).images(z)


class Invent(GenerativeModel):
    """Real test images of combinations of factors that training goes without, and training images.

    The former are a `share` of all. Every image is real; the combinations are what no copy has.
    """

    latent_dim = 2

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        number("model.share", share, 0, 1)
        self.share = share
        self.known: Album | None = None
        self.unseen: Album | None = None

    def observe(self, data: ImageData) -> None:
        """Find the test images whose combination never occurs in training. Raises UserMistake."""
        train, test = (_factors(data, split, "model=invent") for split in ("train", "test"))
        new = ~np.isin(test.combinations(), train.combinations())
        if not new.any():
            raise UserMistake(
                f"model=invent: every combination of {data.name} occurs in training: hold some out, as in "
                f"dataset.holdout=[{test.names[0]}:{test.values[0][0]}]"
            )
        self.known = Album(data, "train")
        self.unseen = Album(data, "test", torch.from_numpy(new.nonzero()[0]))

    def players(self) -> dict[str, Player]:
        """Nobody moves."""
        return {}

    def step(self, images: Tensor) -> Iterator[Move]:
        """No moves: it learns nothing."""
        yield from ()

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw places in a shuffled order, and which of the images are new: (n, 2)."""
        new = torch.zeros(n)
        new[: round(self.share * n)] = 1
        new = new[torch.randperm(n, generator=generator)]
        places = torch.empty(n, 1)
        for album, which in ((self.known, new == 0), (self.unseen, new == 1)):
            places[which] = _opened(album).latents(int(which.sum()), generator)
        return torch.cat([places, new[:, None]], 1)

    def sample(self, z: Tensor) -> Tensor:
        """Show the images at these places."""
        known, unseen = (_opened(album).images(z) for album in (self.known, self.unseen))
        return known.where(z[:, 1, None, None, None] == 0, unseen)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur (N, C, H, W) by a Gaussian of `sigma` pixels, the border's pixels going on outside."""
    radius = max(1, round(4 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = (-0.5 * (offsets / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    for shape, padding in (((-1, 1), (0, 0, radius, radius)), ((1, -1), (radius, radius, 0, 0))):
        weight = kernel.view(1, 1, *shape).expand(channels, -1, -1, -1)
        images = F.conv2d(F.pad(images, padding, mode="replicate"), weight, groups=channels)
    return images


def clusters(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Assign points (N, D) to `count` clusters by k-means, Lloyd 1982: numbers (N,)."""
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    nearest = points.new_zeros(len(points), dtype=torch.long)
    for _ in range(ROUNDS):
        nearest = (centres.square().sum(1) - 2 * points @ centres.T).argmin(1)
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        there = sizes > 0  # an empty cluster keeps its centre
        centres[there] = sums[there] / sizes[there, None]
    return nearest


def _reduced(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, min(SIDE, images.shape[-1])).flatten(1)


def _known(split: Split) -> Split:
    if split not in ("train", "validation", "test"):
        raise UserMistake(f"model.split={split!r} is not one of train, validation, test")
    return split


def _factors(data: ImageData, split: Split, setting: str) -> Factors:
    factors = data.factors(split)
    if factors is None:
        raise UserMistake(
            f"{setting}: nothing is known of the factors of {data.name}: choose dataset=shapes or "
            "stacked-digits"
        )
    return factors


def _opened(album: Album | None) -> Album:
    assert album is not None, "observe() comes first"
    return album
