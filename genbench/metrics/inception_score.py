"""Inception Score: confidence of a classifier and balance of its labels, Salimans et al. 2016.

https://arxiv.org/abs/1606.03498, section 4. It ignores real images, and noise can score above damaged
images: compare it with the score of held-out images. In one split, in log space: with probabilities in
float32 a missing class gives NaN.
"""

from collections.abc import Mapping
from math import log
from typing import Any

import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite


def inception_score(logits: Tensor) -> float:
    """exp(mean KL(p(y|x) || p(y))) of logits (N, K): from 1 to K. Raises ValueError for NaN."""
    check_finite(logits)
    conditional = logits.double().log_softmax(1)
    marginal = conditional.logsumexp(0) - log(len(logits))
    divergence = (conditional.exp() * (conditional - marginal)).sum(1)
    return float(torch.exp(divergence.mean()))


class InceptionScore(FeatureMetric):
    """The score of generated images, and that of held-out images with the same classifier."""

    needs_labels = True
    quantities = (
        Quantity("is", ("fake",), True),
        Quantity("is_heldout", ("heldout",), None),
    )

    @property
    def estimator(self) -> Mapping[str, Any]:
        """Number of splits."""
        return {"splits": 1, "version": 1}

    def __call__(self, sets: Mapping[Role, Features]) -> dict[str, Estimate]:
        """Score held-out images, and generated ones if there are any."""
        estimates = {"is_heldout": Estimate(inception_score(sets["heldout"].logits))}
        if "fake" in sets:
            estimates["is"] = Estimate(inception_score(sets["fake"].logits))
        return estimates
