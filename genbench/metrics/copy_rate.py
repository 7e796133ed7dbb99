"""Whether generated images are copies of training images.

Needed because a copy of the training set has a Frechet distance of 0 to it, the best value.

An image counts as a copy if its nearest training image is much nearer to it than the next ones are, as in
the ratio test of Lowe 2004 and the search for copies by Carlini et al. 2023
(https://arxiv.org/abs/2301.13188). One threshold on the distance itself would call new images of a dense
class copies (of MNIST's ones 9 %), and miss copies with a little noise in a sparse one. A bound on the
distance remains, which half of the held-out images pass: among images far from all training images, such
as noise, one training image may be the nearest to all.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite
from genbench.metrics.prdc import squared_distances

DISTANCE = "distance of its features to the nearest training image"  # kept of every image
QUANTILE = 0.01  # fraction of held-out images that count as copies: the null value
NEAR = 0.5  # fraction of held-out images that are near enough to a training image to be copies
NEXT, MIDDLE, LAST = 5, 25, 50  # neighbours that the nearest one is compared with
LARGEST = 1e12  # of a nearness, so that quantiles stay finite


class Nearest(NamedTuple):
    """Of each image the distance to its nearest training image, its nearness, and which it is."""

    distance: Tensor  # (N,) each
    nearness: Tensor
    place: Tensor  # number of the training image

    def within(self, bound: Tensor) -> Tensor:
        """The nearness, 0 where the distance is above a bound."""
        return self.nearness.where(self.distance <= bound, 0)


def nearest(x: Tensor, train: Tensor) -> Nearest:
    """How much nearer each row of `x` is to its nearest row of `train` than to the next ones.

    The nearness is log(d_5 / d_1) / log(d_50 / d_25), where d_j is the distance to the j-th nearest of
    three rows or more; 0 or more, `LARGEST` for d_1 = 0.

    For new points its distribution is nearly the same everywhere: around a point the volumes of the balls
    with radii d_1, d_2, ... are a Poisson process, and a volume is c r^m. The density c cancels in each
    ratio of distances, the dimension m in the ratio of logarithms. d_5 and not d_2, so that up to three
    duplicates of a training image do not hide its copies.
    """
    last = min(LAST, len(train))
    middle = min(MIDDLE, max(2, last // 2))
    places = [0, min(NEXT, middle) - 1, middle - 1, last - 1]
    distances, found, which = [], [], []
    for _, block in squared_distances(x, train):
        squares, numbers = block.topk(last, dim=1, largest=False)
        which.append(numbers[:, 0])
        first, after, inner, outer = squares[:, places].log().unbind(1)
        value = ((after - first) / (outer - inner)).where(after > first, 0)  # 0 / 0: duplicates
        found.append(value.where(first > -torch.inf, LARGEST).clamp_max(LARGEST))
        distances.append(squares[:, 0].sqrt())
    return Nearest(torch.cat(distances), torch.cat(found), torch.cat(which))


def copy_rate(
    fake: Tensor,
    train: Tensor,
    heldout: Tensor,
    quantile: float = QUANTILE,
    new: Nearest | None = None,
) -> float:
    """Fraction of `fake` whose nearness to `train` is above that of all but a `quantile` of `heldout`.

    And whose distance to `train` is at most the median distance of `heldout`. From 0 to 1; about
    `quantile` for new images of the same distribution, or of any one class of it. `new` is
    `nearest(heldout, train)`, if that is known. Raises ValueError for NaN, and for fewer than three rows of
    `train`.
    """
    for rows in (fake, train, heldout):
        check_finite(rows)
    if len(train) < 3:
        raise ValueError(f"{len(train)} training images: nearness compares three or more")
    found = copies(nearest(fake, train), new or nearest(heldout, train), quantile)
    return float(found.double().mean())


def copies(made: Nearest, new: Nearest, quantile: float = QUANTILE) -> Tensor:
    """Which images count as copies, (N,) bool: those of `copy_rate`."""
    bound = torch.quantile(new.distance, NEAR)
    threshold = torch.quantile(new.within(bound), 1 - quantile)
    return (made.nearness >= threshold) & (made.distance <= bound)


class CopyRate(FeatureMetric):
    """Fraction of generated images with a greater nearness to a training image than 99 % of held-out images."""

    quantities = (Quantity("copy_rate", ("fake", "heldout", "real"), False),)
    minimum = 3

    def __init__(self) -> None:
        self._known: tuple[Tensor, Tensor, Nearest] | None = (
            None  # real and held-out features, theirs
        )
        # of the last call: the generated images, which of them are copies, and the bound on their distance
        self.found: tuple[Nearest, Tensor, Tensor] | None = None

    @property
    def estimator(self) -> Mapping[str, Any]:
        """The quantiles of nearness and distance, and how nearness is measured."""
        return {
            "quantile": QUANTILE,
            "near": NEAR,
            "nearness": f"log(d_{NEXT} / d_1) / log(d_{LAST} / d_{MIDDLE})",
            "version": 2,
        }

    def __call__(self, sets: Mapping[Role, Features]) -> dict[str, Estimate]:
        """Compare with the nearness of the held-out images, which is the same for all models."""
        fake, real, heldout = (sets[role].features for role in ("fake", "real", "heldout"))
        known = self._known
        if known is None or known[0] is not real or known[1] is not heldout:
            check_finite(heldout)
            check_finite(real)
            self._known = known = real, heldout, nearest(heldout, real)
        check_finite(fake)
        made = nearest(fake, real)
        self.found = made, copies(made, known[2]), torch.quantile(known[2].distance, NEAR)
        rate = float(self.found[1].double().mean())
        return {"copy_rate": Estimate(rate, each=made.distance.tolist(), what=DISTANCE)}
