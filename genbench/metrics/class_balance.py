"""Whether generated images have the class frequencies of real ones."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite


def total_variation(logits: Tensor, other: Tensor) -> float:
    """Half the sum of |p_k - q_k| over the predicted labels of two sets of logits (N, K): 0 to 1."""
    check_finite(logits)
    check_finite(other)
    frequencies = [
        torch.bincount(rows.argmax(1), minlength=rows.shape[1]).double() / len(rows)
        for rows in (logits, other)
    ]
    return float((frequencies[0] - frequencies[1]).abs().sum() / 2)


class ClassBalance(FeatureMetric):
    """Total variation distance between predicted labels of generated and of training images."""

    needs_labels = True
    quantities = (Quantity("class_tv", ("fake", "real"), False),)

    @property
    def estimator(self) -> Mapping[str, Any]:
        """How labels are predicted."""
        return {"labels": "argmax", "version": 1}

    def __call__(self, sets: Mapping[Role, Features]) -> dict[str, Estimate]:
        """Compare the two histograms."""
        return {"class_tv": Estimate(total_variation(sets["fake"].logits, sets["real"].logits))}
