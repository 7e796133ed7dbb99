"""Three grey digits as the channels of one picture: 1000 modes that can be counted.

Stacked MNIST of Metz, Poole, Pfau, Sohl-Dickstein 2017, https://arxiv.org/abs/1611.02163, section 3.3.1;
Che et al. 2017 before them. Digits are drawn independently of each other, from those of one split.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.data.contract import Split
from genbench.data.factors import Factors
from genbench.data.source import Source
from genbench.data.splits import SPLITS, Amount
from genbench.data.transform import Picture
from genbench.ranges import whole

SEED = 20_261_128  # of the draws: never changed

CHANNELS = ("red", "green", "blue")

SPREAD = 1 << 16  # draws of a picture are numbers below it


class Stacked(Source):
    """`counts` pictures of each split, each of three grey pictures of the same split of `base`.

    `validation` and `test` are those of `base`. The factors are the classes of the channels, `red`,
    `green` and `blue`, where `base` knows classes.
    """

    def __init__(
        self,
        base: Callable[..., Source],
        counts: Mapping[str, int],
        root: Path | None,
        download: bool,
        validation: Amount | None,
        test: Amount | None,
    ) -> None:
        super().__init__(root, download, validation, test)
        self.base = base(root=root, download=download, validation=validation, test=test)
        for split in SPLITS:
            whole(f"dataset.source.counts.{split}", counts.get(split))
        self.counts = {split: counts[split] for split in SPLITS}

    @property
    def place(self) -> str:
        """That of the digits."""
        return self.base.place

    def missing(self) -> str | None:
        """What the digits lack."""
        return self.base.missing()

    def prepare(self) -> None:
        """As the digits are prepared."""
        self.base.prepare()

    def identity(self) -> Any:
        """The digits, and how many pictures are drawn of them."""
        return {"stacked": self.base.identity(), "counts": self.counts, "version": 1}

    def split(self, split: Split) -> NDArray[np.int64]:
        """Pictures are numbered through: training, validation, test."""
        first = sum(self.counts[one] for one in SPLITS[: SPLITS.index(split)])
        return np.arange(first, first + self.counts[split])

    def factors(self) -> Factors | None:
        """The class of each channel."""
        classes = self.base.classes()
        if classes is None:
            return None
        return Factors(CHANNELS, (classes.names,) * 3, classes.labels[self._digits])

    def picture(self, number: int) -> Picture:
        """(side, side, 3)."""
        digits = [np.asarray(self.base.picture(int(i))) for i in self._digits[number]]
        return np.stack(digits, axis=2)

    def label(self, number: int) -> str:
        """The three digits."""
        return " + ".join(self.base.label(int(i)) for i in self._digits[number])

    @cached_property
    def _digits(self) -> NDArray[np.int64]:
        """Numbers in `base` of the three digits of each picture, (N, 3)."""
        found = []
        for place, split in enumerate(SPLITS):
            random = np.random.RandomState(SEED + place)  # its draws are the same in every version
            there = self.base.split(split)
            draws = random.randint(0, SPREAD, (self.counts[split], 3), dtype=np.int64)
            found.append(there[draws * len(there) // SPREAD])
        return np.concatenate(found)
