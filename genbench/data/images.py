"""The dataset of a run: three splits of square level indices, and the training stream."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.data import binarisation, cache
from genbench.data.contract import ImageData, Split
from genbench.data.sources import SPLITS, Share, Source
from genbench.data.stream import Batch, ImageStream, Indices, Plan
from genbench.data.transform import Transform
from genbench.errors import UserMistake

RESIDENT_SHARE = 0.25  # of the device's free memory that a dataset may take


PROBED = 64  # pictures tried before training where not all are decoded beforehand


class Images(ImageData):
    """Images of one source, decoded once into `<cache>/data` and mapped into memory from there.

    A split above `cache_gb` is decoded while it is used, by `workers` processes in training.
    `device_resident`: true, false, or auto for when it takes less than a quarter of the free memory
    of a GPU. `flip` mirrors training images left to right with probability 1/2; nothing else sees
    it. `binarize` turns grey pictures into ones of 2 levels: see `binarisation`. The other arguments
    are those of `Source` and `Transform`.
    """

    def __init__(
        self,
        *,
        name: str,
        source: Callable[..., Source],
        root: str | None,
        download: bool,
        validation: Share | None,
        test: Share | None,
        image_size: int,
        channels: int,
        levels: int,
        crop: int | None,
        resize: str,
        convert: bool,
        upscale: bool,
        flip: bool,
        cache: str,
        cache_gb: float,
        device_resident: bool | str,
        workers: int,
        binarize: str | None = None,
    ) -> None:
        binarisation.check(binarize, levels)
        self.name, self.image_size, self.channels, self.levels = name, image_size, channels, levels
        self.binarize = binarize
        grey = binarisation.GREY_LEVELS if binarize else levels
        self.transform = Transform(
            image_size, channels, grey, crop, resize, convert=convert, upscale=upscale
        )
        self.source = source(
            root=None if root is None else Path(root).expanduser(),
            download=download,
            validation=validation,
            test=test,
        )
        self.shares = (validation, test)
        self.flip = flip
        self.cache_folder = Path(cache).expanduser() / "data"
        self.cache_bytes = cache_gb * 1e9
        self.device_resident, self.workers = _resident(device_resident), workers
        self._plan: Plan | None = None
        self._splits: dict[Split, tuple[NDArray[np.uint8], str | None]] = {}
        self._grey: NDArray[np.uint8] | None = None
        self._identity: Any = None
        self._resident: Tensor | None = None

    # --- pixels ---------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Fetch what is missing and decode what is not cached; every mistake is found here."""
        for split in SPLITS:
            self.pixels(split)
        self._shown()

    def pixels(self, split: Split) -> NDArray[np.uint8]:
        """All images of a split: (N, C, H, W) uint8 level indices, memory-mapped."""
        return self._opened(split)[0]

    def card(self, split: Split) -> dict[str, Any]:
        """What defines the split.

        `fingerprint` is the sha256 of the pixels in index order; null where the split is above
        `cache_gb` and nobody has seen all of it.
        """
        pixels, fingerprint = self._opened(split)
        card = {
            "dataset": self.name,
            "split": split,
            "n": len(pixels),
            "image_size": self.image_size,
            "channels": self.channels,
            "levels": self.levels,
            "transform": self.transform.card(),
            "fingerprint": fingerprint,
        }
        if self.binarize:  # in what is scored; training may see other draws
            card["binarisation"] = {"seed": binarisation.STATIC_SEED, "training": self.binarize}
        return card

    def decode(self, split: Split, grey: bool = False) -> Callable[[int], NDArray[np.uint8]]:
        """Read picture i of a split from its source and transform it: (C, H, W).

        `grey` leaves out the binarisation.
        """
        numbers = self.source.split(split)

        def decode(i: int) -> NDArray[np.uint8]:
            number = int(numbers[i])
            pixels = self.transform(self.source.picture(number), self.source.label(number))
            return pixels if grey or not self.binarize else _binarized(pixels, number)

        return decode

    def folder(self, split: Split, grey: bool = False) -> Path:
        """Where a split is cached: named by everything that its pixels depend on."""
        if self._identity is None:
            self.source.prepare()
            self._identity = json.loads(json.dumps(self.source.identity()))
        parts = [cache.VERSION, self._identity, split, self.shares, self.transform.card()]
        if self.binarize and not grey:
            parts.append({"binarised": binarisation.STATIC_SEED})
        return self.cache_folder / f"{self.name}-{self.image_size}-{split}-{cache.digest(parts)}"

    def _opened(self, split: Split) -> tuple[NDArray[np.uint8], str | None]:
        if split not in self._splits:
            self._splits[split] = self._open(split)
        return self._splits[split]

    def _shown(self) -> NDArray[np.uint8]:
        """What training draws from: grey pictures where they are binarised at each showing."""
        if self.binarize != "dynamic":
            return self.pixels("train")
        if self._grey is None:
            self._grey = self._open("train", grey=True)[0]
        return self._grey

    def _open(self, split: Split, grey: bool = False) -> tuple[NDArray[np.uint8], str | None]:
        folder = self.folder(split, grey)
        if self.cache_bytes and folder.is_dir():  # its source need not even be read
            found = cache.read_or_none(folder)
            if found is not None:
                return found[0], found[1]["fingerprint"]
        shape = len(self.source.split(split)), self.channels, self.image_size, self.image_size
        if not shape[0]:
            raise UserMistake(
                f"{self.name} has no {split} pictures: set dataset.{split} to a number or a "
                "fraction to set aside"
            )
        decode = self.decode(split, grey)
        if np.prod(shape) > self.cache_bytes:
            lazy = DecodedOnDemand(shape, decode)
            lazy[:PROBED]
            return cast(NDArray[np.uint8], lazy), None
        pixels, card = cache.build(folder, shape, decode, f"{self.name} ({split})")
        return pixels, card["fingerprint"]

    # --- training -------------------------------------------------------------------------------

    def plan(
        self,
        *,
        seed: int,
        batch_size: int,
        pieces: int,
        steps: int,
        steps_per_batch: int,
        stops: Sequence[int] = (),
    ) -> None:
        """Fix the training order before `train_dataloader`; see `stream`."""
        self._plan = Plan(seed, batch_size, pieces, steps, steps_per_batch, tuple(stops))

    def train_dataloader(
        self, rank: int = 0, ranks: int = 1, device: torch.device | None = None
    ) -> ImageStream:
        """The rest of the plan, as one epoch, for one DDP rank."""
        assert self._plan is not None, "plan() comes first"
        plan, device = self._plan.of_rank(rank, ranks), device or torch.device("cpu")
        pixels = self._shown()
        if isinstance(pixels, DecodedOnDemand):
            read, workers = _read_slowly(pixels), min(self.workers, os.cpu_count() or 1)
        else:
            self._resident = self._on_device(pixels, device)
            read = torch.from_numpy if self._resident is not None else _reader(pixels, device)
            workers = 0
        return ImageStream(
            plan,
            len(pixels),
            read,
            flip=self.flip,
            numbered=self.binarize == "dynamic",
            workers=workers,
            pin_memory=device.type == "cuda",
        )

    def training_images(self, batch: Batch) -> Tensor:
        """On the device: gather if the dataset is there, flip, binarise, and scale to [-1, 1]."""
        pixels = batch.content if self._resident is None else self._resident[batch.content]
        if batch.flips is not None:  # by rows: on a CPU five times as fast as torch.where
            own = torch.arange(len(pixels), device=pixels.device)
            mirrored = torch.cat([pixels, pixels.flip(-1)])
            pixels = mirrored.index_select(0, own + len(pixels) * batch.flips)
        if batch.positions is not None:
            assert self._plan is not None
            pixels = binarisation.binarized(pixels, self._plan.seed, batch.positions)
        return self.to_images(pixels)

    def _on_device(self, pixels: NDArray[np.uint8], device: torch.device) -> Tensor | None:
        wanted = self.device_resident
        if wanted == "auto":
            wanted = (
                device.type == "cuda"
                and pixels.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
            )
        return torch.from_numpy(np.array(pixels)).to(device) if wanted else None


def _resident(value: bool | str) -> bool | str:
    if value not in (True, False, "auto"):
        raise UserMistake(f"dataset.device_resident={value!r} is not one of auto, true, false")
    return value


def _binarized(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    drawn = binarisation.binarized(
        torch.from_numpy(pixels.copy())[None], binarisation.STATIC_SEED, torch.tensor([number])
    )
    return cast(NDArray[np.uint8], drawn[0].numpy())


def _reader(pixels: NDArray[np.uint8], device: torch.device) -> Callable[[Indices], Tensor]:
    pin = device.type == "cuda"  # a pinned batch is copied while the device computes
    stored = np.asarray(pixels)

    def read(indices: Indices) -> Tensor:
        batch = torch.empty((len(indices), *stored.shape[1:]), dtype=torch.uint8, pin_memory=pin)
        np.take(stored, indices, axis=0, out=batch.numpy(), mode="clip")  # unbuffered, unlike raise
        return batch

    return read


def _read_slowly(pixels: "DecodedOnDemand") -> Callable[[Indices], Tensor]:
    return lambda indices: torch.from_numpy(pixels[indices])


class DecodedOnDemand:
    """A split that is too large for the cache, to be read by slices like an array."""

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
