"""Codes of finitely many values, and how a gradient passes them."""

import torch
from torch import Tensor


def straight_through(values: Tensor, quantised: Tensor) -> Tensor:
    """`quantised`, whose gradient goes to `values` unchanged: Bengio et al. 2013, arXiv 1308.3432."""
    return values + (quantised - values).detach()


def perplexity(codes: Tensor, count: int) -> Tensor:
    """exp of the entropy of codes 0 .. count - 1 (of any shape): how many are used alike, a scalar."""
    every = torch.arange(count, device=codes.device)
    share = (codes.flatten()[:, None] == every).float().mean(0)
    return (-torch.xlogy(share, share).sum()).exp()
