"""Subsets of a split, for pictures and for scores that are too slow for all of its images.

A split may be sorted by class, so that its first images are of some classes only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.data.contract import ImageData, Split

ORDER_SEED = (
    20_261_127  # of the permutation of a split, the same for every score, and never changed
)


def chosen(data: ImageData, split: Split, count: int) -> NDArray[np.int64]:
    """Numbers of `count` images of a split, or of all if there are fewer: (min(count, N),).

    They are the first ones of a fixed permutation, so that a larger subset contains a smaller one.
    """
    order = np.random.RandomState(ORDER_SEED).permutation(len(data.pixels(split)))
    return order[:count].astype(np.int64)


def subset_card(data: ImageData, split: Split, count: int) -> dict[str, Any]:
    """The split's card, and what defines the subset if `count` is not the whole split."""
    return subset_of(data.card(split), len(data.pixels(split)), count)


def subset_of(card: Mapping[str, Any], there: int, count: int) -> dict[str, Any]:
    """The card of `there` images, and what defines the subset of `count` of them by the permutation."""
    if count >= there:
        return dict(card)
    return {**card, "subset": {"n": count, "permutation": ORDER_SEED}}
