"""Collects what scores are means of, while they are computed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from genbench.runs.per_image import VALUE, ImageValues
from genbench.runs.score import Score


class Kept:
    """Values of single images by the score that they belong to."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Score, str, NDArray[np.uint32], NDArray[np.float32]]] = {}

    def keep(
        self,
        score: Score,
        values: Tensor | Sequence[float],
        images: NDArray[np.int64] | None = None,
        what: str = VALUE,
    ) -> None:
        """Keep values (N,) of the images with these numbers (None: 0 to N - 1); none of a score without value."""
        if score.value is not None:
            numbers = np.arange(len(values)) if images is None else images
            given = values.detach().cpu().tolist() if isinstance(values, Tensor) else values
            own = np.asarray(given, np.float32)
            self._found[id(score)] = score, what, numbers.astype(np.uint32), own

    def named(self, before: Sequence[Score], after: Sequence[Score]) -> list[ImageValues]:
        """All values under the names of `after`, what scores `before` have become."""
        found = []
        for old, new in zip(before, after, strict=True):
            if id(old) in self._found:
                _, what, images, values = self._found[id(old)]
                own = new.name, new.checkpoint, new.protocol
                found.append(ImageValues(*own, what, images, values))
        return found
