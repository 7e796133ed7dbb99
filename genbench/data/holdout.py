"""A source without some combinations of its factors in training and validation; testing has them all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.data.attributes import Attributes
from genbench.data.classes import Classes
from genbench.data.contract import Split
from genbench.data.factors import Factors, matching
from genbench.data.source import Source
from genbench.data.transform import Picture
from genbench.errors import UserMistake

SETTING = "dataset.holdout"


class HeldOut(Source):
    """`source` without the pictures of these `combinations`, which only its test split keeps.

    `split` raises UserMistake for unknown factors and values, and where nothing is left.
    """

    def __init__(self, source: Source, combinations: str | Sequence[str]) -> None:
        super().__init__(source.given_root, source.download, source.validation, source.test)
        self.source = source
        given = [combinations] if isinstance(combinations, str) else combinations
        self.combinations = [str(combination) for combination in given]

    @property
    def place(self) -> str:
        """That of the source."""
        return self.source.place

    def missing(self) -> str | None:
        """What the source lacks."""
        return self.source.missing()

    def prepare(self) -> None:
        """As the source does."""
        self.source.prepare()

    def identity(self) -> Any:
        """That of the source, and what is left out."""
        return {"source": self.source.identity(), "holdout": self.combinations}

    def split(self, split: Split) -> NDArray[np.int64]:
        """The source's split; training and validation without the combinations."""
        numbers, factors = self.source.split(split), self.source.factors()
        if factors is None:
            raise UserMistake(
                f"{SETTING}={self.combinations}: nothing is known of the factors of these pictures: "
                "leave it out, or choose dataset=shapes or stacked-digits"
            )
        out = matching(factors.of(numbers), self.combinations, SETTING)
        if split == "test":
            return numbers
        if out.all():
            raise UserMistake(
                f"{SETTING}={self.combinations} leaves no {split} pictures: hold fewer combinations out"
            )
        return numbers[~out]

    def picture(self, number: int) -> Picture:
        """The source's."""
        return self.source.picture(number)

    def label(self, number: int) -> str:
        """The source's."""
        return self.source.label(number)

    def classes(self) -> Classes | None:
        """The source's."""
        return self.source.classes()

    def factors(self) -> Factors | None:
        """The source's."""
        return self.source.factors()

    def attributes(self) -> Attributes | None:
        """The source's."""
        return self.source.attributes()
