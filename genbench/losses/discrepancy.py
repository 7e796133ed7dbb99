"""Distances between two samples."""

from collections.abc import Sequence

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 of (N, d) and (M, d): (N, M)."""
    return (a[:, None] - b[None]).square().sum(2)


def maximum_mean_discrepancy(a: Tensor, b: Tensor, scales: Sequence[float] = SCALES) -> Tensor:
    """Squared MMD of two samples (N, d), N > 1: the unbiased U-statistic, a scalar that may be negative.

    The kernel is inverse multiquadratic, summed over scales: k(a, b) = sum C / (C + |a - b|^2) with
    C = 2 d s, for a prior of variance 1. Tolstikhin et al. 2018, section 4 and algorithm 2,
    https://arxiv.org/abs/1711.01558; the scales are those of their code.
    """
    a, b, n = a.float(), b.float(), len(a)
    within_a, within_b, across = _squares(a, a), _squares(b, b), _squares(a, b)
    apart = ~torch.eye(n, dtype=torch.bool, device=a.device)  # a pair is of two different draws
    total = a.new_zeros(())
    for scale in scales:
        c = 2 * a.shape[1] * scale
        within = (c / (c + within_a) + c / (c + within_b)).where(apart, 0.0).sum()
        total = total + within / (n * (n - 1)) - 2 * (c / (c + across)).mean()
    return total
