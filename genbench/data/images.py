"""The dataset of a run: three splits of square level indices, and the training stream."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.data import binarisation
from genbench.data.attributes import Attributes
from genbench.data.contract import ImageData, Split
from genbench.data.factors import Factors
from genbench.data.holdout import HeldOut
from genbench.data.source import Source
from genbench.data.split_pixels import DecodedOnDemand, SplitPixels
from genbench.data.splits import SPLITS, Amount
from genbench.data.stream import Batch, ImageStream, Indices, StreamPlan
from genbench.data.transform import Transform
from genbench.errors import UserMistake
from genbench.ranges import number, whole

RESIDENT_FRACTION = 0.25  # of a GPU's free memory that a dataset may take


class Images(ImageData):
    """Images of one source, decoded once into `<cache>/data` and mapped into memory from there.

    A split above `cache_gb` is decoded on demand, by `workers` processes in training.
    `device_resident` keeps the training images on the device: true, false, or auto for a GPU if they
    take less than a quarter of its free memory. `flip` mirrors training images left to right with
    probability 1/2; metrics see none of it. `binarize` turns grey pictures into 2 levels: see
    `binarisation`. `holdout` names combinations of factors that training and validation go without, as
    in ["shape:square+colour:red"]: see `holdout`. The other arguments are those of `Source` and `Transform`.
    """

    def __init__(
        self,
        *,
        name: str,
        source: Callable[..., Source],
        root: str | None,
        download: bool,
        validation: Amount | None,
        test: Amount | None,
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
        holdout: str | Sequence[str] = (),
    ) -> None:
        whole("dataset.image_size", image_size)
        whole("dataset.channels", channels, most=4)
        whole("dataset.levels", levels, 2, 256)
        whole("dataset.workers", workers, 0)
        number("dataset.cache_gb", cache_gb)
        for part, amount in (("validation", validation), ("test", test)):
            number(f"dataset.{part}", 0 if amount is None else amount)
        binarisation.check(binarize, levels)
        self.name, self.image_size, self.channels, self.levels = name, image_size, channels, levels
        self.binarize = binarize
        grey = binarisation.GREY_LEVELS if binarize else levels
        self.transform = Transform(
            image_size, channels, grey, crop, resize, convert=convert, upscale=upscale
        )
        if root is not None and not str(root).strip():  # Path("") would be the current folder
            raise UserMistake(
                "dataset.root= is empty: give the folder or zip with your pictures (is a variable unset?)"
            )
        self.source = source(
            root=None if root is None else Path(root).expanduser(),
            download=download,
            validation=validation,
            test=test,
        )
        if holdout:
            self.source = HeldOut(self.source, holdout)
        self._pixels = SplitPixels(
            name,
            self.source,
            self.transform,
            bool(binarize),
            (validation, test),
            Path(cache).expanduser() / "data",
            cache_gb * 1e9,
        )
        self.flip = flip
        self.device_resident, self.workers = _resident(device_resident), workers
        self._plan: StreamPlan | None = None
        self._resident: Tensor | None = None
        self._labels: Tensor | None = None

    # --- pixels ---------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download what is missing and decode what is not cached. Raises UserMistake."""
        for split in SPLITS:
            self.pixels(split)
        self._shown()

    def pixels(self, split: Split) -> NDArray[np.uint8]:
        """All images of a split: (N, C, H, W) uint8 level indices, memory-mapped."""
        return self._pixels.of(split)[0]

    def card(self, split: Split) -> dict[str, Any]:
        """What defines the split.

        `fingerprint` is the sha256 of the pixels in index order; None for a split above `cache_gb`,
        which is never decoded as a whole here.
        """
        pixels, fingerprint = self._pixels.of(split)
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
        if self.binarize:  # the draws that are scored; training may use others
            card["binarisation"] = {"seed": binarisation.STATIC_SEED, "training": self.binarize}
        return card

    def labels(self, split: Split) -> NDArray[np.int64] | None:
        """Classes of the images of a split, (N,) into `class_names`. Raises UserMistake."""
        classes = self.source.classes()
        return None if classes is None else classes.labels[self.source.split(split)]

    def factors(self, split: Split) -> Factors | None:
        """What is known of the images of a split; None if nothing is. Raises UserMistake."""
        factors = self.source.factors()
        return None if factors is None else factors.of(self.source.split(split))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; none where none are known. Raises UserMistake."""
        classes = self.source.classes()
        return () if classes is None else classes.names

    def attributes(self, split: Split) -> Attributes | None:
        """Attributes of the images of a split; None if none are known. Raises UserMistake."""
        attributes = self.source.attributes()
        return None if attributes is None else attributes.of(self.source.split(split))

    def decode(self, split: Split) -> Callable[[int], NDArray[np.uint8]]:
        """A function from i to picture i of a split, read and transformed: (C, H, W) uint8."""
        return self._pixels.decode(split)

    def folder(self, split: Split) -> Path:
        """Where a split is cached."""
        return self._pixels.folder(split)

    def _shown(self) -> NDArray[np.uint8]:
        """What training draws from: grey pictures if they are binarised anew at every showing."""
        return self._pixels.of("train", grey=self.binarize == "dynamic")[0]

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
        self._plan = StreamPlan(seed, batch_size, pieces, steps, steps_per_batch, tuple(stops))

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
            self._resident = _on_device(pixels, device, self.device_resident)
            read = torch.from_numpy if self._resident is not None else _reader(pixels, device)
            workers = 0
        return ImageStream(
            plan,
            len(pixels),
            read,
            flip=self.flip,
            numbered=self.binarize == "dynamic",
            labels=self._labels,
            workers=workers,
            pin_memory=device.type == "cuda",
        )

    def hand_out(self, labels: Tensor) -> None:
        """Give these labels of the training images, (N, ...) by index, with every batch."""
        self._labels = labels

    def training_labels(self, batch: Batch) -> Tensor:
        """On the device: the labels of a batch."""
        assert batch.labels is not None, "hand_out() comes first"
        return batch.labels

    def training_images(self, batch: Batch) -> Tensor:
        """On the device: look up resident images, flip, binarise, scale to [-1, 1]: (N, C, H, W)."""
        pixels = batch.content if self._resident is None else self._resident[batch.content]
        if batch.flips is not None:  # by index: on a CPU five times as fast as torch.where
            own = torch.arange(len(pixels), device=pixels.device)
            mirrored = torch.cat([pixels, pixels.flip(-1)])
            pixels = mirrored.index_select(0, own + len(pixels) * batch.flips)
        if batch.positions is not None:
            assert self._plan is not None
            keys = binarisation.dynamic_keys(self._plan.seed, batch.positions)
            pixels = binarisation.binarized(pixels, keys)
        return self.to_images(pixels)


def _on_device(
    pixels: NDArray[np.uint8], device: torch.device, wanted: bool | str
) -> Tensor | None:
    """A copy of all pixels on the device, if that is wanted."""
    if wanted == "auto":
        wanted = (
            device.type == "cuda"
            and pixels.nbytes
            < RESIDENT_FRACTION * torch.cuda.mem_get_info(device)[0] / _runs_beside()
        )
    return torch.from_numpy(np.array(pixels)).to(device) if wanted else None


def _runs_beside() -> int:
    """Runs that share a GPU, this one included, as the pool that has started them says."""
    return max(1, int(os.environ.get("GENBENCH_JOBS_PER_GPU", "1")))


def _resident(value: bool | str) -> bool | str:
    if value not in (True, False, "auto"):
        raise UserMistake(f"dataset.device_resident={value!r} is not one of auto, true, false")
    return value


def _reader(pixels: NDArray[np.uint8], device: torch.device) -> Callable[[Indices], Tensor]:
    pin = device.type == "cuda"  # copied asynchronously from pinned memory
    stored = np.asarray(pixels)

    def read(indices: Indices) -> Tensor:
        batch = torch.empty((len(indices), *stored.shape[1:]), dtype=torch.uint8, pin_memory=pin)
        np.take(
            stored, indices, axis=0, out=batch.numpy(), mode="clip"
        )  # mode="raise" would buffer
        return batch

    return read


def _read_slowly(pixels: DecodedOnDemand) -> Callable[[Indices], Tensor]:
    return lambda indices: torch.from_numpy(pixels[indices])
