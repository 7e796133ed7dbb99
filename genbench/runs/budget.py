"""The length of a run, counted in images shown to the decoder (not in steps, which models count differently)."""

import math
import re
from dataclasses import dataclass

from genbench.errors import UserMistake

_SUFFIX = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def parse_images(text: str | int, key: str = "budget.images") -> int:
    """Read `2_000_000`, `500k` or `1.5M`, the value of `key`, as a number of images."""
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kMG]?)", str(text).strip())
    if not match:
        raise UserMistake(
            f"{key}={text!r} is not a number of images: write 2_000_000, 500k or 1.5M"
        )
    return round(float(match[1].replace("_", "")) * _SUFFIX[match[2]])


@dataclass(frozen=True)
class Budget:
    """How long a run may train: `images` or `epochs`, and at most `seconds` if given."""

    images: str | int | None
    batch_size: int
    epochs: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Raise UserMistake for values that are no budget."""
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise UserMistake(
                f"budget.batch_size={self.batch_size} is not a number of images: give an integer from 1 on"
            )
        for name in ("epochs", "seconds"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or value < 0):
                raise UserMistake(
                    f"budget.{name}={value!r} is not a number from 0 on: give one, or null for no limit"
                )

    def steps(self, training_images: int) -> int:
        """Number of decoder steps for `training_images` in the split: ceil(images / batch_size).

        The last batch is a full one, so up to batch_size - 1 more images are shown.
        """
        if self.epochs is not None:
            images = round(self.epochs * training_images)
        elif self.images is not None:
            images = parse_images(self.images)
        else:
            raise UserMistake("budget.images and budget.epochs are both null: give one of them")
        return math.ceil(images / self.batch_size)
