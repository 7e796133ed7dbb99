"""A step of training: the moves of a model are performed here and nowhere else, alike for all."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from genbench.models.condition import dropped
from genbench.models.contract import GenerativeModel, Move
from genbench.networks.conditional import given
from genbench.training.cuda_graph import Capture
from genbench.training.seat import Backward, Look, Seat

Track = Callable[[str, Tensor], None]


class Stepper:
    """Takes the steps of a model: on whole batches, in parts, or from a recorded CUDA graph."""

    def __init__(
        self,
        model: GenerativeModel,
        seats: Mapping[str, Seat],
        track: Track,
        backward: Backward,
        looks: Sequence[Look] = (),
        parts: int = 1,
    ) -> None:
        self.model, self.seats, self.track = model, seats, track
        self.backward, self.looks, self.parts = backward, looks, parts
        self.moves: dict[str, int] = {}  # made in the last step, by player

    def take(self, images: Tensor, step: int, labels: Tensor | None = None) -> None:
        """Step number `step`, on `discriminator_steps` batches of images in one, and their labels."""
        if self.parts > 1:
            self._take_in_parts((images, *given(labels)), step)
            return
        self.model.draws.begin(step)
        self._take(images, *given(labels))

    def replay(
        self, images: Tensor, step: int, capture: Capture, labels: Tensor | None = None
    ) -> None:
        """The same from a CUDA graph; what the first such steps do is what it records."""
        self.model.draws.begin(step)
        batch = (images, *given(labels))
        capture.step(batch, self._take, self.model.draws.generator, self.track)

    def _moves(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """The moves of a step; of the labels the model gets those that are not dropped."""
        model = self.model
        kept = dropped(labels, model.condition, model.uniform, model.discriminator_steps)
        return model.step(images, *given(kept))

    def _take(self, *batch: Tensor) -> None:
        made: dict[str, int] = {}
        for move in self._moves(*batch):
            seat = self.seats[move.player]
            seat.optimizer.zero_grad()
            self._descend(move, seat)
            seat.move(self.looks)
            made[move.player] = made.get(move.player, 0) + 1
        self.moves = made

    def _descend(self, move: Move, seat: Seat, last: bool = True) -> None:
        value = seat.descend(move.loss, self.parts, self.backward, last)
        self.track(f"loss/{move.player}", value)

    def _take_in_parts(self, batch: Sequence[Tensor], step: int) -> None:
        """Take a step with its batch in parts: the same gradients from less memory.

        Every move is made on all parts before the next one: for each, the step is begun anew on each
        part, and the moves that have been made already are passed over. What precedes a move is
        computed again after the moves before it, so a move must not need what a player that has moved
        since then had computed before: true where each player has one place in a step; and every step
        must have as many moves as the first. Random numbers are drawn for the whole batch, and each
        part takes its rows.
        """
        draws, first = self.model.draws, self.model.draws.share
        pieces = self.model.discriminator_steps
        parts = [*zip(*(_parts(one, pieces, self.parts) for one in batch), strict=True)]
        after: list[Tensor] = []  # the generator's state behind each move that has been made
        made: dict[str, int] = {}
        try:
            while not self.moves or len(after) < sum(self.moves.values()):
                for index, part in enumerate(parts):
                    draws.share = first + index
                    move = self._next_move(part, step, after)
                    if move is None:  # the first step: now it is known how many moves there are
                        self.moves = made
                        return
                    player, seat = move.player, self.seats[move.player]
                    if index == 0:
                        seat.optimizer.zero_grad()
                    self._descend(move, seat, last=index == len(parts) - 1)
                after.append(draws.generator.get_state())
                seat.move(self.looks)
                made[player] = made.get(player, 0) + 1
        finally:
            draws.share = first

    def _next_move(
        self, batch: Sequence[Tensor], step: int, after: Sequence[Tensor]
    ) -> Move | None:
        """The first move of a step that has not been made; None if there is none."""
        draws = self.model.draws
        draws.begin(step)
        moves = self._moves(*batch)
        for state in after:
            next(moves)
            draws.generator.set_state(state)
        return next(moves, None)


def _parts(images: Tensor, pieces: int, number: int) -> list[Tensor]:
    """Split into `number` parts, each with its rows of each of the `pieces` batches."""
    rows = [piece.chunk(number) for piece in images.chunk(pieces)]
    return [torch.cat([piece[part] for piece in rows]) for part in range(number)]
