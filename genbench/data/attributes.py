"""Attributes of pictures: each has any number of them, as CelebA's faces do, or the values of their factors."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genbench.data.factors import Factors
from genbench.errors import UserMistake


class Attributes(NamedTuple):
    """Attributes of pictures: `values` (N, A) int8 of 0 and 1, by a picture's number; `names` are theirs."""

    names: tuple[str, ...]
    values: NDArray[np.int8]

    def of(self, numbers: NDArray[np.int64]) -> "Attributes":
        """The attributes of some of the pictures, in that order."""
        return self._replace(values=self.values[numbers])


def of_factors(factors: Factors) -> Attributes | None:
    """Every value of every factor as an attribute, `shape:square`; None of a single factor, which is a class."""
    if len(factors.names) < 2:
        return None
    names = [
        f"{f}:{value}"
        for f, own in zip(factors.names, factors.values, strict=True)
        for value in own
    ]
    columns = [
        labels[:, None] == np.arange(size)
        for size, labels in zip(factors.sizes, factors.labels.T, strict=True)
    ]
    return Attributes(tuple(names), np.concatenate(columns, 1).astype(np.int8))


def listed_attributes(path: Path, pictures: list[str]) -> Attributes:
    """CelebA's list_attr_celeba.txt, or the .csv of Kaggle's copy: 1 and -1 for each picture.

    Raises UserMistake if it is damaged or lacks a picture.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    head = next((line for line in lines if not line.strip().isdecimal()), "")  # below their number
    names = [name for name in re.split(r"[ ,]+", head.strip()) if name and name != "image_id"]
    rows: dict[str, list[str]] = {}
    for line in lines:
        name, *values = re.split(r"[ ,]+", line.strip())
        if name.endswith(".jpg"):
            rows[name] = values
    found = [rows.get(name, []) for name in pictures]
    if not names or any(len(row) != len(names) or {*row} - {"1", "-1"} for row in found):
        raise UserMistake(
            f"{path} does not list {len(names)} attributes of 1 or -1 for every picture: it is damaged or half "
            "downloaded, get it again, or choose arena.condition=none"
        )
    return Attributes(tuple(names), (np.array(found, dtype=np.int8) > 0).astype(np.int8))
