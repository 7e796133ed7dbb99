"""Learning rates on the clock of images: a pure function, so that there is no state to resume."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from genbench.errors import UserMistake
from genbench.ranges import number
from genbench.runs.budget import parse_images

SHAPES: dict[str, Callable[[float], float]] = {  # of the way down, 0 to 1: how much is left
    "constant": lambda way: 1.0,
    "linear": lambda way: 1.0 - way,
    "cosine": lambda way: 0.5 * (1.0 + math.cos(math.pi * way)),
}


@dataclass(frozen=True)
class Schedule:
    """What every optimizer's learning rate is multiplied by, from the images so far (steps x batch).

    It climbs in a straight line over the first `warmup` images, stays until the share `hold` of the
    budget, and goes down by its `shape` to the share `final`, where it is from the share `until` of the
    budget on. Warm-up and way down are multiplied where they meet.
    """

    shape: str
    warmup: str | int = 0
    hold: float = 0.0
    final: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is not a schedule."""
        if self.shape not in SHAPES:
            raise UserMistake(
                f"schedule.shape={self.shape!r} is not one of {', '.join(SHAPES)}: choose by "
                "schedule=constant, linear or cosine"
            )
        parse_images(self.warmup, "schedule.warmup")
        number("schedule.hold", self.hold, None)
        number("schedule.final", self.final, None)
        if not 0 <= self.hold < 1:
            raise UserMistake(
                f"schedule.hold={self.hold} is not a share of the budget: give 0 or more, below 1"
            )
        number("schedule.until", self.until, None)
        if not self.hold < self.until <= 1:
            raise UserMistake(
                f"schedule.until={self.until} is not a share of the budget behind "
                f"schedule.hold={self.hold}: give more than that, up to 1"
            )
        if self.final < 0:
            raise UserMistake(
                f"schedule.final={self.final} is below 0: give the share of the learning rate that "
                "is left at the end"
            )

    @property
    def moves(self) -> bool:
        """Whether it ever differs from 1."""
        return self.shape != "constant" or parse_images(self.warmup) > 0

    def factor(self, images: int, batch_size: int, total: int) -> float:
        """For the step that begins at `images` of `total`, and ends `batch_size` later.

        The way down is read where the step begins, the warm-up where it ends: no step stands still
        at the beginning, and the first one after the warm-up has the whole rate.
        """
        warmup = parse_images(self.warmup)
        climbed = min(1.0, (images + batch_size) / warmup) if warmup else 1.0
        start, end = self.hold * total, self.until * total
        way = min(1.0, max(0.0, images - start) / max(end - start, 1.0))
        return climbed * (self.final + (1.0 - self.final) * SHAPES[self.shape](way))
