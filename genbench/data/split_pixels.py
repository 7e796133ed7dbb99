"""The pixels of the splits of a source: decoded once into a cache, or on demand above its size."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from genbench.data import binarisation, cache
from genbench.data.contract import Split
from genbench.data.source import Source
from genbench.data.splits import Amount
from genbench.data.transform import Transform
from genbench.errors import UserMistake
from genbench.runs.score import digest

PROBED = 64  # pictures decoded before training if a split is too large to decode all

Pixels = tuple[NDArray[np.uint8], str | None]  # of a split, and the sha256 of them all, if known


class SplitPixels:
    """Pictures of `source`, transformed, in `<cache>/<name>-<what they depend on>`.

    A split of more than `most` bytes is decoded on demand. `binarize` says whether pictures are drawn
    as two levels, `set_aside` which amounts the splits were given.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        transform: Transform,
        binarize: bool,
        set_aside: tuple[Amount | None, Amount | None],
        cache_folder: Path,
        most: float,
    ) -> None:
        self.name, self.source, self.transform, self.binarize = name, source, transform, binarize
        self.set_aside, self.cache_folder, self.most = set_aside, cache_folder, most
        self._opened: dict[tuple[Split, bool], Pixels] = {}
        self._identity: Any = None

    def of(self, split: Split, grey: bool = False) -> Pixels:
        """All images of a split, (N, C, H, W) uint8; `grey` ones are not binarised. Raises UserMistake."""
        key = split, grey and self.binarize
        if key not in self._opened:
            self._opened[key] = self._open(*key)
        return self._opened[key]

    def decode(self, split: Split, grey: bool = False) -> Callable[[int], NDArray[np.uint8]]:
        """A function from i to picture i of a split, read and transformed: (C, H, W) uint8.

        `grey` leaves out the binarisation.
        """
        numbers = self.source.split(split)

        def decode(i: int) -> NDArray[np.uint8]:
            number = int(numbers[i])
            pixels = self.transform(self.source.picture(number), self.source.label(number))
            return pixels if grey or not self.binarize else _binarized(pixels, number)

        return decode

    def folder(self, split: Split, grey: bool = False) -> Path:
        """Where a split is cached: a name with a digest of everything that its pixels depend on."""
        if self._identity is None:
            self.source.prepare()
            self._identity = json.loads(json.dumps(self.source.identity()))
        parts = [cache.VERSION, self._identity, split, self.set_aside, self.transform.card()]
        if self.binarize and not grey:
            parts.append({"binarised": binarisation.STATIC_SEED})
        key = f"{self.transform.image_size}-{split}-{digest(parts, 16)}"
        folder = self.cache_folder / f"{self.name}-{key}"
        if folder.is_dir():
            return folder
        return next(self.cache_folder.glob(f"*-{key}"), folder)  # the same under another name

    def _open(self, split: Split, grey: bool = False) -> Pixels:
        folder = self.folder(split, grey)
        if self.most and folder.is_dir():  # then the source is not read at all
            found = cache.read_or_none(folder)
            if found is not None:
                return found[0], found[1]["fingerprint"]
        size = self.transform.image_size
        shape = len(self.source.split(split)), self.transform.channels, size, size
        if not shape[0]:
            raise UserMistake(
                f"{self.name} has no {split} pictures: set dataset.{split} to a number or a "
                "fraction to set aside"
            )
        decode = self.decode(split, grey)
        if np.prod(shape) > self.most:
            lazy = DecodedOnDemand(shape, decode)
            lazy[:PROBED]
            return cast(NDArray[np.uint8], lazy), None
        pixels, card = cache.build(folder, shape, decode, f"{self.name} ({split})")
        return pixels, card["fingerprint"]


def _binarized(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    keys = binarisation.static_keys(torch.tensor([number]))
    drawn = binarisation.binarized(torch.from_numpy(pixels.copy())[None], keys)
    return cast(NDArray[np.uint8], drawn[0].numpy())


class DecodedOnDemand:
    """A split too large for the cache: indexed like an array, each picture decoded on access."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, shape: cache.Shape, decode: Callable[[int], NDArray[np.uint8]]) -> None:
        self.shape, self.decode = shape, decode

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> NDArray[np.uint8]:
        numbers = np.arange(len(self))[which]
        if numbers.ndim == 0:
            return self.decode(int(numbers))
        if not len(numbers):
            return np.empty((0, *self.shape[1:]), np.uint8)
        return np.stack([self.decode(int(number)) for number in numbers])
