"""The training order, and the loader that follows it: a function of seed and position alone.

Every epoch is a permutation of the images; positions count on across epochs, so that no image is
dropped. Step s takes the positions [s * pieces * B, (s + 1) * pieces * B) for batches of B images, and
each rank its slice of every piece. Which image is at a position, and whether it is flipped, does not
depend on workers, ranks, resuming or the number of steps per batch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_all_start_methods
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genbench.errors import UserMistake

Indices = NDArray[np.int64]
ORDER, FLIP = 1_618, 3_141  # make permutations and flips of one seed independent


class Batch(NamedTuple):
    """What is copied to the device: pixels, or indices if the dataset is there already."""

    content: Tensor  # (N, C, H, W) uint8, or (N,) int64
    flips: Tensor | None  # (N,) bool, which images to mirror
    positions: Tensor | None = None  # (N,) int64, if images are binarised anew at every position
    labels: Tensor | None = None  # (N, ...), if the images are trained on with labels


@dataclass(frozen=True)
class StreamPlan:
    """How many steps there are, how many images each takes, and how steps are grouped in batches."""

    seed: int
    batch_size: int  # images of one piece, over all ranks
    pieces: int
    steps: int
    steps_per_batch: int
    stops: Sequence[int] = ()  # in images: no batch goes past a multiple of one of these
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Refuse a batch size that the ranks do not divide. Raises UserMistake."""
        if self.batch_size % self.world_size:
            raise UserMistake(
                f"budget.batch_size={self.batch_size} cannot be split over {self.world_size} "
                "devices: choose a multiple"
            )

    def of_rank(self, rank: int, world_size: int) -> "StreamPlan":
        """The same plan for one of several ranks."""
        return replace(self, rank=rank, world_size=world_size)

    def end(self, start: int) -> int:
        """The step after the last one of the batch that begins with step `start`."""
        shown = start * self.batch_size
        due = [-(-(shown // images + 1) * images // self.batch_size) for images in self.stops]
        return min(start + self.steps_per_batch, self.steps, *due)

    def positions(self, start: int, stop: int) -> Indices:
        """Positions of this rank in the steps start .. stop - 1, (N,), by step, piece, image."""
        local = self.batch_size // self.world_size
        pieces = np.arange(start * self.pieces, stop * self.pieces, dtype=np.int64)
        within = self.rank * local + np.arange(local, dtype=np.int64)
        return cast(Indices, (pieces[:, None] * self.batch_size + within).ravel())


class Order:
    """Which image is at a position, and whether it is mirrored."""

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.seed = images, seed
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> Indices:
        # RandomState, because NumPy guarantees that its stream never changes
        seed = self.seed % 2**64
        words = [ORDER, seed % 2**32, seed >> 32, epoch]
        return np.random.RandomState(words).permutation(self.images).astype(np.int64)

    def indices(self, positions: Indices) -> Indices:
        """Indices of the images at positions, both (N,)."""
        epochs, offsets = np.divmod(positions, self.images)
        first, last = int(epochs.min()), int(epochs.max())
        if first == last:
            return self._permutation(first)[offsets]
        found = np.empty_like(offsets)
        for epoch in range(first, last + 1):
            here = epochs == epoch
            found[here] = self._permutation(epoch)[offsets[here]]
        return found

    def flips(self, positions: Indices) -> NDArray[np.bool_]:
        """Flip each position with probability 1/2, by one bit of splitmix64 (Steele et al. 2014)."""
        key = (self.seed * 0x9E3779B97F4A7C15 + FLIP) % 2**64
        x = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x ^= np.uint64(key)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        return x >= np.uint64(2**63)


class ImageStream:
    """A resumable loader whose single epoch is the whole plan.

    Its state is the number of steps done, so that a run may be resumed with another
    `steps_per_batch` or number of devices.
    """

    def __init__(
        self,
        plan: StreamPlan,
        images: int,
        read: Callable[[Indices], Tensor],
        *,
        flip: bool,
        numbered: bool = False,
        labels: Tensor | None = None,  # of all images, by index
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.plan, self.read, self.flip, self.numbered = plan, read, flip, numbered
        self.labels, self.workers, self.pin_memory = labels, workers, pin_memory
        self.order = Order(images, plan.seed)
        self.steps = 0  # done so far

    def batch(self, start: int) -> Batch:
        """Read the batch of steps that begins with step `start`."""
        stop = self.plan.end(start)
        positions = self.plan.positions(start, stop)
        flips = torch.from_numpy(self.order.flips(positions)) if self.flip else None
        numbers = torch.from_numpy(positions) if self.numbered else None
        indices = self.order.indices(positions)
        labels = None if self.labels is None else self.labels[torch.from_numpy(indices)]
        batch = Batch(self.read(indices), flips, numbers, labels)
        if self.workers or not self.pin_memory:  # a loader with workers pins in a thread of its own
            return batch
        pinned = [None if part is None else part.pin_memory() for part in batch]
        return Batch._make(pinned)

    def __len__(self) -> int:
        """Number of steps of the plan: an upper bound of the number of batches.

        Lightning stops when its own count of batches reaches this length. After resuming with another
        `steps_per_batch` its count is not ours, so the bound ensures that the iterator ends first.
        """
        return self.plan.steps

    def __iter__(self) -> Iterator[Batch]:
        starts = self._starts(self.steps)
        batches = self._with_workers(starts) if self.workers else map(self.batch, starts)
        for start, batch in zip(self._starts(self.steps), batches, strict=True):
            # counted before the batch is trained on, because checkpoints are written after that
            self.steps = self.plan.end(start)
            yield batch

    def _starts(self, start: int) -> Iterator[int]:
        while start < self.plan.steps:
            yield start
            start = self.plan.end(start)

    def _with_workers(self, starts: Iterable[int]) -> Iterator[Batch]:
        loader: DataLoader[Batch] = DataLoader(
            _Batches(self),
            batch_size=None,
            sampler=starts,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            # open archives and what decodes pictures are inherited: macOS, and Linux from Python 3.14 on,
            # would pickle them, and cannot
            multiprocessing_context="fork" if "fork" in get_all_start_methods() else None,
            generator=torch.Generator(),  # its own, so that the global generator is left as it is
        )
        return iter(loader)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps done."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after that step."""
        self.steps = state["steps"]


class _Batches(Dataset[Batch]):
    """A stream as a map-style dataset for PyTorch's workers: batches by their first step."""

    def __init__(self, stream: ImageStream) -> None:
        self.stream = stream

    def __getitem__(self, start: int) -> Batch:
        return self.stream.batch(start)
