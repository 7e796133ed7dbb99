"""The gradients of a whole batch from small ones, for a memory that does not hold it at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class TurnOver(Exception):
    """Ends a replay after the update that it was for."""


class Accumulation:
    """Takes a step with its batch in `number` parts, and moves each player once.

    A step is a sequence of updates, and each is taken by itself: the step is replayed on every part
    up to that update, where the gradients add up, and the last part moves the player. What precedes
    the update is computed anew, so an update must not need what a player that has moved since then
    had computed before: true of all models here, where each player has one place in a step.
    Random numbers are drawn for the whole batch, each part takes its rows, and an update that is
    passed over leaves the generator as it was after it: a part sees what it sees in the whole batch.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.index = 0  # of the part at hand
        self._turn, self._seen = 0, 0  # the update that this replay is for; updates met in it
        self._turns: int | None = None  # updates in a step, once one has been taken
        self._states: list[Tensor] = []  # of the generator, after each update

    @property
    def last(self) -> bool:
        """Whether the part at hand completes the batch."""
        return self.index == self.number - 1

    def step(
        self, images: Tensor, pieces: int, begin: Callable[[], None], step: Callable[[Tensor], None]
    ) -> None:
        """Take the step `step` on `images`, `pieces` batches in a row; `begin` seeds its draws."""
        parts = split(images, pieces, self.number)
        self._states, self._turn = [], 0
        while self._turns is None or self._turn < self._turns:
            for self.index, part in enumerate(parts):
                self._seen = 0
                begin()
                try:
                    step(part)
                except TurnOver:
                    continue
                self._turns = self._turn  # no such update: they have all been taken
                break
            self._turn += 1

    def passes_over(self, generator: torch.Generator) -> bool:
        """Tell whether the update at hand was taken before; leave the draws behind it if so."""
        turn, self._seen = self._seen, self._seen + 1
        if turn < self._turn:
            generator.set_state(self._states[turn])
        return turn < self._turn

    def end(self, generator: torch.Generator) -> None:
        """Note where the update left the draws, and end the replay."""
        if len(self._states) == self._turn:
            self._states.append(generator.get_state())
        raise TurnOver


def split(images: Tensor, pieces: int, number: int) -> Sequence[Tensor]:
    """Split into `number` parts, each with its rows of each of the `pieces` batches."""
    rows = [piece.chunk(number) for piece in images.chunk(pieces)]
    return [torch.cat([piece[part] for piece in rows]) for part in range(number)]
