"""Factors of pictures: named labels, of which a picture has one value each.

A world whose truth is known has several (shape, colour, ...); a set of labelled pictures has one, its
class. Combinations of values are named as in `shape:square+colour:red`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genbench.data.classes import Classes
from genbench.errors import UserMistake


class Factors(NamedTuple):
    """What is known of pictures: `labels` (N, F) int64, by a picture's number, into `values`.

    `names` are those of the F factors, `values[f]` those of the values of factor f.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    labels: NDArray[np.int64]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each factor."""
        return tuple(len(values) for values in self.values)

    def of(self, numbers: NDArray[np.int64]) -> "Factors":
        """The factors of some of the pictures, in that order."""
        return self._replace(labels=self.labels[numbers])

    def combinations(self) -> NDArray[np.int64]:
        """The combination of each picture, (N,), from 0 to the product of `sizes` - 1."""
        found = np.zeros(len(self.labels), np.int64)
        for size, labels in zip(self.sizes, self.labels.T, strict=True):
            found = found * size + labels
        return found


def of_classes(classes: Classes) -> Factors:
    """Classes as the only factor, `class`."""
    return Factors(("class",), (classes.names,), classes.labels[:, None])


def matching(
    factors: Factors, combinations: str | Sequence[str], setting: str
) -> NDArray[np.bool_]:
    """Which pictures have one of `combinations`, ["shape:square+colour:red", ...]: (N,).

    Raises UserMistake, with the name of the `setting`, for what names no value of a factor.
    """
    given = [combinations] if isinstance(combinations, str) else list(combinations)
    found = np.zeros(len(factors.labels), bool)
    for combination in given:
        alike = np.ones(len(factors.labels), bool)
        for part in str(combination).split("+"):
            factor, value = _place(factors, part, f"{setting}={combination}")
            alike &= factors.labels[:, factor] == value
        found |= alike
    return found


def _place(factors: Factors, part: str, where: str) -> tuple[int, int]:
    """(factor, value) of `shape:square`. Raises UserMistake."""
    name, colon, value = part.partition(":")
    if not colon:
        raise UserMistake(
            f"{where}: {part!r} is no factor and value: write shape:square, and + between several"
        )
    if name not in factors.names:
        raise UserMistake(
            f"{where}: there is no factor {name}: choose one of {', '.join(factors.names)}"
        )
    factor = factors.names.index(name)
    if value not in factors.values[factor]:
        raise UserMistake(
            f"{where}: {name} is never {value}: choose one of {', '.join(factors.values[factor])}"
        )
    return factor, factors.values[factor].index(value)
