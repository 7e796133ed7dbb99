"""A world whose truth is known: one coloured shape on a ground, of six independent named factors.

In the manner of dSprites (Matthey et al. 2017) and 3D Shapes (Burgess and Kim 2018), but drawn here, in
colour, and with small differences within a combination, so that no two pictures are equal.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.data.contract import Split
from genbench.data.factors import Factors
from genbench.data.shape_drawing import SHAPES, UNIT, Colour, Look, drawn
from genbench.data.source import Source
from genbench.data.splits import set_aside
from genbench.data.transform import Picture
from genbench.ranges import whole

SEED = 20_261_127  # of the world: never changed

VERSION = 1  # of what a picture of a number looks like

COLOURS: dict[str, Colour] = {
    "red": (208, 48, 48),
    "yellow": (220, 204, 40),
    "green": (48, 164, 64),
    "blue": (48, 80, 212),
    "purple": (164, 60, 196),
}
BACKGROUNDS: dict[str, Colour] = {
    "black": (24, 24, 24),
    "grey": (128, 128, 128),
    "white": (232, 232, 232),
}
SIZES = {"small": UNIT * 15 // 100, "large": UNIT * 23 // 100}  # radii
ROTATIONS = {"0": 0, "30": 30, "60": 60}  # degrees
NEAR, FAR = UNIT * 31 // 100, UNIT * 69 // 100
POSITIONS = {
    "upper-left": (NEAR, NEAR),
    "upper-right": (FAR, NEAR),
    "lower-left": (NEAR, FAR),
    "lower-right": (FAR, FAR),
}
VALUES: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "rotation": tuple(ROTATIONS),
    "position": tuple(POSITIONS),
    "background": tuple(BACKGROUNDS),
}

# differences within a combination, to both sides
SHIFT, GROWTH, DEGREES, SHADE = UNIT * 4 // 100, UNIT * 6 // 100, 5, 16

DRAWS = len(VALUES) + 6  # for each picture, of 16 bits


class Shapes(Source):
    """`pictures` pictures with factors drawn uniformly and independently, at any `image_size`.

    1440 combinations: 4 shapes, 5 colours, 2 sizes, 3 rotations, 4 positions, 3 backgrounds. Within a
    combination place, size, angle and shades differ a little. A picture depends on its number and on
    the size alone. `validation` and `test` pictures are set aside, the rest is for training.
    """

    def __init__(self, image_size: int, pictures: int, **shared: Any) -> None:
        super().__init__(**shared)
        whole("dataset.image_size", image_size, 8, 1024)
        whole("dataset.source.pictures", pictures)
        self.image_size, self.pictures = image_size, pictures

    @property
    def place(self) -> str:
        """Nowhere."""
        return "drawn by genbench"

    def missing(self) -> str | None:
        """Never missing."""
        return None

    def identity(self) -> Any:
        """The world's version, the number of pictures, and their size."""
        return {"shapes": VERSION, "pictures": self.pictures, "image_size": self.image_size}

    def split(self, split: Split) -> NDArray[np.int64]:
        """By the fixed permutation."""
        return set_aside(self.pictures, self.validation or 0, self.test or 0)[split]

    def factors(self) -> Factors:
        """The factors of all pictures."""
        sizes = np.array([len(values) for values in VALUES.values()])
        labels = self._draws[:, : len(VALUES)] * sizes >> 16
        return Factors(tuple(VALUES), tuple(VALUES.values()), labels)

    def picture(self, number: int) -> Picture:
        """Draw it: (image_size, image_size, 3)."""
        return drawn(self.look(number), self.image_size)

    def look(self, number: int) -> Look:
        """What a picture shows, exactly."""
        draws = [int(draw) for draw in self._draws[number]]
        shape, colour, size, rotation, position, background = (
            values[draw * len(values) >> 16]
            for draw, values in zip(draws, VALUES.values(), strict=False)
        )
        right, down, growth, turn, shade, light = draws[len(VALUES) :]
        x, y = POSITIONS[position]
        return Look(
            shape,
            x + _within(right, SHIFT),
            y + _within(down, SHIFT),
            SIZES[size] * (UNIT + _within(growth, GROWTH)) // UNIT,
            ROTATIONS[rotation] + _within(turn, DEGREES),
            _shaded(COLOURS[colour], _within(shade, SHADE)),
            _shaded(BACKGROUNDS[background], _within(light, SHADE)),
        )

    def label(self, number: int) -> str:
        """Its number."""
        return f"shape {number}"

    @cached_property
    def _draws(self) -> NDArray[np.int64]:
        """Draws of 16 bits, (pictures, DRAWS): more pictures change none of the first ones."""
        random = np.random.RandomState(SEED)  # its draws are the same in every version
        return random.randint(0, 1 << 16, (self.pictures, DRAWS), dtype=np.int64)


def _within(draw: int, width: int) -> int:
    """A draw of 16 bits as one from -width to width."""
    return (draw * (2 * width + 1) >> 16) - width


def _shaded(colour: Colour, shade: int) -> Colour:
    red, green, blue = (channel + shade for channel in colour)
    return red, green, blue
