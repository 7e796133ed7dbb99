"""The training order, and the loader that reads it: a function of the seed and the position alone.

Every epoch is a permutation; positions run on across epochs, so that no image is dropped. Step s
takes the positions [s * pieces * B, (s + 1) * pieces * B), and each rank its slice of every piece.
Neither workers, ranks, resuming nor the number of steps per batch change which image is at which
position, or whether it is flipped.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genbench.errors import UserMistake

Indices = NDArray[np.int64]


ORDER, FLIP = 1_618, 3_141  # set the permutations' randomness apart from the flips'


class Batch(NamedTuple):
    """What travels to the device: pixels, or indices where the dataset lies there already."""

    content: Tensor  # (N, C, H, W) uint8, or (N,) int64
    flips: Tensor | None  # (N,) bool, which ones to mirror
    positions: Tensor | None = None  # (N,) int64, where a draw is made for each showing


@dataclass(frozen=True)
class Plan:
    """How much training there is, and in what portions."""

    seed: int
    batch_size: int  # images of one piece, over all ranks
    pieces: int
    steps: int
    steps_per_batch: int
    stops: Sequence[int] = ()  # in images shown: no portion goes past a multiple of one of these
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Refuse a batch that cannot be split."""
        if self.batch_size % self.world_size:
            raise UserMistake(
                f"budget.batch_size={self.batch_size} cannot be split over {self.world_size} "
                "devices: choose a multiple"
            )

    def of_rank(self, rank: int, world_size: int) -> "Plan":
        """The same plan as one of several processes sees it."""
        return replace(self, rank=rank, world_size=world_size)

    def end(self, start: int) -> int:
        """Step before which the portion that begins with `start` ends."""
        shown = start * self.batch_size
        due = [-(-(shown // images + 1) * images // self.batch_size) for images in self.stops]
        return min(start + self.steps_per_batch, self.steps, *due)

    def positions(self, start: int, stop: int) -> Indices:
        """Positions of this rank in the steps start .. stop - 1: by step, piece, image."""
        local = self.batch_size // self.world_size
        pieces = np.arange(start * self.pieces, stop * self.pieces, dtype=np.int64)
        within = self.rank * local + np.arange(local, dtype=np.int64)
        return cast(Indices, (pieces[:, None] * self.batch_size + within).ravel())


class Order:
    """Which image is at a position, and whether it is flipped."""

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.seed = images, seed
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> Indices:
        # RandomState: the one generator whose stream NumPy has promised never to change
        seed = self.seed % 2**64
        words = [ORDER, seed % 2**32, seed >> 32, epoch]
        return np.random.RandomState(words).permutation(self.images).astype(np.int64)

    def indices(self, positions: Indices) -> Indices:
        """Image numbers at positions, both (N,)."""
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
        """Toss a fair coin for every position: one bit of splitmix64, Steele et al. 2014."""
        key = (self.seed * 0x9E3779B97F4A7C15 + FLIP) % 2**64
        x = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x ^= np.uint64(key)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        return x >= np.uint64(2**63)


class ImageStream:
    """A loader of one epoch that holds the whole plan, and knows where it stands.

    Its state counts steps, so that a run may be resumed with other `steps_per_batch` or devices.
    """

    def __init__(
        self,
        plan: Plan,
        images: int,
        read: Callable[[Indices], Tensor],
        *,
        flip: bool,
        numbered: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.plan, self.read, self.flip, self.numbered = plan, read, flip, numbered
        self.workers, self.pin_memory = workers, pin_memory
        self.order = Order(images, plan.seed)
        self.steps = 0  # done

    def batch(self, start: int) -> Batch:
        """Read the portion of steps that begins with `start`."""
        stop = self.plan.end(start)
        positions = self.plan.positions(start, stop)
        flips = torch.from_numpy(self.order.flips(positions)) if self.flip else None
        numbers = torch.from_numpy(positions) if self.numbered else None
        return Batch(self.read(self.order.indices(positions)), flips, numbers)

    def __len__(self) -> int:
        """Count the plan's steps: as many as there can be batches, done ones included.

        Lightning stops where its own count, taken over from a checkpoint that may have had other
        portions, reaches this length. It must not, so the end of the iterator is the end.
        """
        return self.plan.steps

    def __iter__(self) -> Iterator[Batch]:
        starts = self._starts(self.steps)
        batches = self._with_workers(starts) if self.workers else map(self.batch, starts)
        for start, batch in zip(self._starts(self.steps), batches, strict=True):
            # moved on before the batch is out: a checkpoint is written after its steps
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
            generator=torch.Generator(),  # its own, so that the run's randomness is left alone
        )
        return iter(loader)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand there again."""
        self.steps = state["steps"]


class _Batches(Dataset[Batch]):
    """A stream as PyTorch's workers see it: batches by the step they begin with."""

    def __init__(self, stream: ImageStream) -> None:
        self.stream = stream

    def __getitem__(self, start: int) -> Batch:
        return self.stream.batch(start)
