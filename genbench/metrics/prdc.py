"""Fidelity and variety apart: precision and recall, density and coverage, by nearest neighbours.

Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991, and Naeem et al. 2020,
https://arxiv.org/abs/2002.09797. Precision alone misleads: the mean image has precision 1. For equal
distributions and sets of equal size the density is 1 and the coverage 1 - prod_i (N - i) / (2 N - i).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite, rows_of_subset, subset
from genbench.ranges import whole

BLOCK = 2**24  # entries of a distance matrix in memory

SAME = 1e-12  # fraction of |x|^2 + |y|^2 below which a squared distance is a rounding error


class PRDC(NamedTuple):
    """Precision, recall and coverage in [0, 1]; density from 0 on, 1 for equal distributions."""

    precision: float
    recall: float
    density: float
    coverage: float


def squared_distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """|x_i - y_j|^2 in float64, a block of rows at a time with its slice.

    Both sets are shifted by the mean of `y`, which reduces cancellation.
    """
    middle = y.double().mean(0)
    y = y.double() - middle
    lengths = y.square().sum(1)
    step = max(1, BLOCK // len(y))
    for start in range(0, len(x), step):
        which = slice(start, min(start + step, len(x)))
        rows = x[which].double() - middle
        sizes = rows.square().sum(1, keepdim=True) + lengths
        squares = torch.addmm(sizes, rows, y.T, alpha=-2)
        yield which, squares.masked_fill_(squares < SAME * sizes, 0)


def radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each row to its k-th nearest neighbour among the others, (N,)."""
    found = []
    for which, block in squared_distances(x, x):
        rows = torch.arange(len(block), device=block.device)
        block[rows, rows + which.start] = torch.inf  # a row is not its own neighbour
        found.append(block.kthvalue(k, dim=1).values)
    return torch.cat(found)


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> PRDC:
    """Compare two sets by balls around each row with the radius of its k-th nearest neighbour.

    See `neighbourhoods`."""
    return neighbourhoods(real, fake, k)[0]


def neighbourhoods(real: Tensor, fake: Tensor, k: int = 5) -> tuple[PRDC, Tensor]:
    """The scores, and for each real row how far its nearest fake one is, (n,).

    That is a squared distance as a part of the squared radius of the row's ball: coverage is the share of
    rows at 1 or below. Raises ValueError for NaN, infinity and sets of k rows or fewer.
    """
    for rows in (real, fake):
        check_finite(rows)
        if len(rows) <= k:
            raise ValueError(
                f"{len(rows)} rows have no {k} neighbours each: take more, or a lower k"
            )
    real_radii, fake_radii = radii(real, k), radii(fake, k)
    in_real_ball = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    recalled, nearest = 0, []
    for which, block in squared_distances(real, fake):
        within = block <= real_radii[which, None]
        in_real_ball += within.sum(0)
        nearest.append(block.amin(1))
        recalled += int((block <= fake_radii).any(1).sum())
    least = torch.cat(nearest)
    scores = PRDC(
        precision=float((in_real_ball > 0).double().mean()),
        recall=recalled / len(real),
        density=float(in_real_ball.double().mean()) / k,
        coverage=int((least <= real_radii).sum()) / len(real),
    )
    reach = least / real_radii  # 0 / 0: on each other, and covered
    return scores, reach.nan_to_num(0.0, posinf=torch.inf)


class NeighbourScores(FeatureMetric):
    """Precision, recall, density and coverage of generated among training images.

    All four depend on the sizes of the sets: random subsets of equal size are used, that of the smaller
    set or `max_images`.
    """

    quantities = (
        Quantity("precision", ("fake", "real"), True),
        Quantity("recall", ("fake", "real"), True),
        Quantity("density", ("fake", "real"), None),
        Quantity("coverage", ("fake", "real"), True),
    )

    def __init__(self, k: int = 5, max_images: int = 10_000, seed: int = 0) -> None:
        whole("neighbours.k", k)
        whole("neighbours.max_images", max_images, k + 1)
        self.k, self.max_images, self.seed = k, max_images, seed
        self.minimum = k + 1
        # numbers of the training images of the last call, and their `neighbourhoods`
        self.found: tuple[Tensor, Tensor] | None = None

    @property
    def estimator(self) -> Mapping[str, Any]:
        """Number of neighbours, and subsets."""
        return {
            "k": self.k,
            "sizes": "equal",
            "max_images": self.max_images,
            "seed": self.seed,
            "version": 1,
        }

    def __call__(self, sets: Mapping[Role, Features]) -> dict[str, Estimate]:
        """Compare as many generated images as training images."""
        real, fake = sets["real"].features, sets["fake"].features
        n = min(len(real), len(fake), self.max_images)
        parts = subset(real, n, self.seed), subset(fake, n, self.seed)
        scores, reach = neighbourhoods(*parts, self.k)
        self.found = rows_of_subset(len(real), n, self.seed), reach
        return {name: Estimate(value) for name, value in scores._asdict().items()}
