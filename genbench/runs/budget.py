"""The length of a run: images, counted as steps x batch size.

This says nothing of what a step does with its batch: a decoder may be called several times in one, and a
model with several discriminator steps is given as many batches of real images.
"""

import math
import re
from dataclasses import dataclass

from genbench.errors import UserMistake

_SUFFIX = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000, "T": 1_000_000_000_000}
REAL, CLOCK = "real_images", "clock"


def parse_images(text: str | int, key: str = "budget.images") -> int:
    """Read `2_000_000`, `500k` or `1.5M`, the value of `key`, as a number of images."""
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kMGT]?)", str(text).strip())
    if not match:
        raise UserMistake(
            f"{key}={text!r} is not a number of images: write 2_000_000, 500k or 1.5M"
        )
    return round(float(match[1].replace("_", "")) * _SUFFIX[match[2]])


def parse_amount(text: str) -> float | None:
    """Read a number from 0 on, as in `60`, `1.5e12` or `10G`; None for what is none."""
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)([kMGT]?)", text.strip())
    return float(match[1].replace("_", "")) * _SUFFIX[match[2]] if match else None


@dataclass(frozen=True)
class Budget:
    """How long a run may train: `images` or `epochs`, and at most `seconds` if given.

    An epoch shows every training image once (`epochs_of=real_images`). Of `clock`, as configs of before
    this existed mean it, a model with several discriminator steps was shown as many times more.
    """

    images: str | int | None
    batch_size: int
    epochs: float | None = None
    seconds: float | None = None
    epochs_of: str = CLOCK

    def __post_init__(self) -> None:
        """Raise UserMistake for values that are no budget."""
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise UserMistake(
                f"budget.batch_size={self.batch_size} is not a number of images: give an integer from 1 on"
            )
        if self.epochs_of not in (REAL, CLOCK):
            raise UserMistake(
                f"budget.epochs_of={self.epochs_of!r} is nothing to count: choose {REAL} or {CLOCK}"
            )
        for name in ("epochs", "seconds"):
            value = getattr(self, name)
            if value is not None and (
                not isinstance(value, int | float) or not 0 <= value < math.inf
            ):
                raise UserMistake(
                    f"budget.{name}={value!r} is not a number from 0 on: give one, or null for no limit"
                )

    def steps(self, training_images: int, batches: int = 1) -> int:
        """Number of steps for `training_images` in the split: ceil(images / batch_size).

        A step takes `batches` batches of real images, so that an epoch of them has as many fewer
        steps. The last batch is a full one.
        """
        step = self.batch_size
        if self.epochs is not None:
            images = round(self.epochs * training_images)
            step *= batches if self.epochs_of == REAL else 1
        elif self.images is not None:
            images = parse_images(self.images)
        else:
            raise UserMistake("budget.images and budget.epochs are both null: give one of them")
        return math.ceil(images / step)
