"""Whether generated images are copies of training images.

Needed because a copy of the training set has a Frechet distance of 0 to it, the best value.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite
from genbench.metrics.prdc import squared_distances

QUANTILE = 0.01  # fraction of held-out images whose distance is within the threshold


def nearest(x: Tensor, train: Tensor) -> Tensor:
    """Squared distance of each row of `x` to its nearest row of `train`, (N,)."""
    return torch.cat([block.amin(1) for _, block in squared_distances(x, train)])


def copy_rate(fake: Tensor, train: Tensor, heldout: Tensor, quantile: float = QUANTILE) -> float:
    """Fraction of `fake` whose nearest row of `train` is within the `quantile` of `heldout`'s distances.

    From 0 to 1; about `quantile` for images of the same distribution. Raises ValueError for NaN.
    """
    for rows in (fake, train, heldout):
        check_finite(rows)
    threshold = torch.quantile(nearest(heldout, train).sqrt(), quantile)
    return float((nearest(fake, train).sqrt() <= threshold).double().mean())


class CopyRate(FeatureMetric):
    """Fraction of generated images nearer to a training image than 99 % of held-out images are."""

    quantities = (Quantity("copy_rate", ("fake", "heldout", "real"), False),)

    @property
    def estimator(self) -> Mapping[str, Any]:
        """The quantile of the threshold."""
        return {"quantile": QUANTILE, "version": 1}

    def __call__(self, sets: Mapping[Role, Features]) -> dict[str, Estimate]:
        """Compare with the distances of the held-out images."""
        fake, real, heldout = (sets[role].features for role in ("fake", "real", "heldout"))
        return {"copy_rate": Estimate(copy_rate(fake, real, heldout))}
