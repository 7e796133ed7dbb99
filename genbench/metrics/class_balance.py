"""Whether generated images have the class frequencies of real ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite

FLOOR_DRAWS, FLOOR_SEED = 1_000, 0  # of pairs of histograms drawn from one distribution


def total_variation(logits: Tensor, other: Tensor) -> float:
    """Half the sum of |p_k - q_k| over the predicted labels of two sets of logits (N, K): 0 to 1."""
    check_finite(logits)
    check_finite(other)
    frequencies = [
        torch.bincount(rows.argmax(1), minlength=rows.shape[1]).double() / len(rows)
        for rows in (logits, other)
    ]
    return float((frequencies[0] - frequencies[1]).abs().sum() / 2)


def equal_variations(labels: Tensor, n: int, m: int) -> Tensor:
    """Total variation between histograms of `n` and of `m` labels drawn alike from counts (K,).

    What chance alone gives: FLOOR_DRAWS values, float64.
    """
    random = np.random.RandomState(FLOOR_SEED)  # its draws are the same in every version
    p = labels.double().cpu().numpy()
    one, other = (random.multinomial(size, p / p.sum(), size=FLOOR_DRAWS) / size for size in (n, m))
    return torch.from_numpy(np.abs(one - other).sum(1) / 2)


class ClassBalance(FeatureMetric):
    """Total variation distance between predicted labels of generated and of training images.

    `class_tv_floor` is its mean for equal distributions at these numbers of images, which is above 0:
    labels of training and held-out images together are taken for the distribution.
    """

    needs_labels = True
    quantities = (
        Quantity("class_tv", ("fake", "real"), False),
        Quantity("class_tv_floor", ("heldout", "real"), None, floor=True),
    )

    @property
    def estimator(self) -> Mapping[str, Any]:
        """How labels are predicted."""
        return {"labels": "argmax", "version": 1}

    def estimator_of(self, quantity: str) -> Mapping[str, Any]:
        """How labels are predicted; for the floor also how it is drawn."""
        drawn = {"draws": FLOOR_DRAWS, "seed": FLOOR_SEED}
        return {**self.estimator, **(drawn if quantity == "class_tv_floor" else {})}

    def __call__(self, sets: Mapping[Role, Features]) -> dict[str, Estimate]:
        """Compare the two histograms."""
        return {"class_tv": Estimate(total_variation(sets["fake"].logits, sets["real"].logits))}

    def floors(self, sets: Mapping[Role, Features], num_samples: int) -> dict[str, Estimate]:
        """Draw pairs of histograms from the labels of all real images."""
        real = sets["real"].logits
        labels = torch.cat([real, sets["heldout"].logits]).argmax(1)
        counts = torch.bincount(labels, minlength=real.shape[1])
        found = equal_variations(counts, num_samples, len(real))
        low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        interval = "95 % of single draws from equal distributions"
        return {"class_tv_floor": Estimate(float(found.mean()), low, high, interval)}
