"""Helpers of metrics that work on feature matrices (N, D)."""

import torch
from torch import Tensor


def check_finite(features: Tensor) -> None:
    """Raise ValueError unless features are (N, D), N >= 2, without NaN or infinity."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features of shape {tuple(features.shape)}: at least two rows are needed")
    if not bool(features.isfinite().all()):
        raise ValueError("features contain NaN or infinity: the images or the extractor are broken")


def subset(features: Tensor, count: int, seed: int) -> Tensor:
    """Choose `count` rows by a permutation that depends only on seed and number of rows; all if fewer."""
    if count >= len(features):
        return features
    return features[rows_of_subset(len(features), count, seed).to(features.device)]


def rows_of_subset(there: int, count: int, seed: int) -> Tensor:
    """The numbers of the rows that `subset` chooses; all in order if there are no more."""
    if count >= there:
        return torch.arange(there)
    return torch.randperm(there, generator=torch.Generator().manual_seed(seed))[:count]
