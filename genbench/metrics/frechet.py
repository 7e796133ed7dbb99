"""Frechet distance between Gaussians fitted to two sets of features, Heusel et al. 2017.

https://arxiv.org/abs/1706.08500, section 3. Called FID only for features of the 2015 Inception.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite

BLOCK = 4096  # rows converted to float64 at a time


class Moments(NamedTuple):
    """Mean (D,) and unbiased covariance (D, D), float64."""

    mean: Tensor
    covariance: Tensor


def moments(features: Tensor, counts: Tensor | None = None) -> Moments:
    """Fit a Gaussian to rows (N, D), row i repeated counts[i] times; two passes, for precision.

    Raises ValueError for NaN, infinity and N < 2.
    """
    check_finite(features)
    weights = torch.ones(len(features)) if counts is None else counts
    weights = weights.to(features.device, torch.float64).unsqueeze(1)
    total = weights.sum()
    pieces = list(zip(torch.split(features, BLOCK), torch.split(weights, BLOCK), strict=True))
    width = features.shape[1]
    mean = features.new_zeros(width, dtype=torch.float64)
    for rows, weight in pieces:
        mean += (rows.double() * weight).sum(0)
    mean /= total
    covariance = features.new_zeros(width, width, dtype=torch.float64)
    for rows, weight in pieces:
        covariance += _gram((rows.double() - mean) * weight.sqrt())
    return Moments(mean, covariance / (total - 1))


def _gram(rows: Tensor) -> Tensor:
    """X^T X of (N, D), by numpy on a CPU: it computes half of the symmetric result, PyTorch all."""
    if rows.device.type == "cpu":
        array = rows.numpy()
        return torch.from_numpy(array.T @ array)
    gram: Tensor = rows.T @ rows
    return gram


def factor(covariance: Tensor) -> Tensor:
    """A matrix F with F F^T = S: Cholesky's, or by eigenvectors if S is singular."""
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed):
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp_min(0).sqrt()
    return root


def distance(a: Moments, b: Moments) -> float:
    """|m - n|^2 + Tr(S + T - 2 (S T)^(1/2)), by the eigenvalues of F^T T F, where F F^T = S.

    S T and F^T T F have the same eigenvalues. Not clipped: for singular covariances rounding may make
    it negative, by about 1e-6.
    """
    inner = _between(factor(a.covariance), b.covariance)
    cross = torch.linalg.eigvalsh(inner).clamp_min(0).sqrt().sum()
    traces = a.covariance.trace() + b.covariance.trace()
    return float((a.mean - b.mean).square().sum() + traces - 2 * cross)


def _between(root: Tensor, covariance: Tensor) -> Tensor:
    """The lower triangle of F^T T F: on a CPU by LAPACK's dsygst, in a third of the time.

    It exploits that F is triangular and the result symmetric; PyTorch has no such function.
    """
    triangular = not bool(root.triu(1).any())
    if root.device.type == "cpu" and triangular:
        from scipy.linalg.lapack import dsygst  # imported late: not needed for training

        # Fortran order is the transpose of ours: with U = F^T this computes U T U^T
        inner, problem = dsygst(covariance.numpy().T, root.numpy().T, itype=2, lower=0)
        assert problem == 0, f"dsygst: argument {-problem}"
        return torch.from_numpy(inner.T)
    product: Tensor = root.T @ covariance @ root
    return (product + product.T) / 2


def resampled_distances(a: Tensor, b: Tensor, times: int, seed: int) -> list[float]:
    """Distances between bootstrap samples of both sets, drawn by a generator of their own.

    Use their mean and standard deviation. Their quantiles are no confidence bounds, because
    resampling adds the bias of finite N a second time.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: Tensor) -> Moments:
        indices = torch.randint(len(rows), (len(rows),), generator=generator)
        return moments(rows, torch.bincount(indices, minlength=len(rows)))

    return [distance(drawn(a), drawn(b)) for _ in range(times)]


class FrechetDistance(FeatureMetric):
    """Distance to the training images, its bias-corrected form, and the same to held-out ones.

    The plain value `fd` is biased by about c / N, and c differs between generators. `fd_bc` subtracts
    the bootstrap estimate of the bias, which is nearly all of it for N >= 10 D: 2 fd - mean of
    `bootstrap` resampled distances. `fd_floor` is the distance of training to held-out images.
    """

    quantities = (
        Quantity("fd", ("fake", "real"), False),
        Quantity("fd_bc", ("fake", "real"), False),
        Quantity("fd_heldout", ("fake", "heldout"), False),
        Quantity("fd_floor", ("heldout", "real"), False),
    )

    def __init__(self, bootstrap: int = 30, seed: int = 0) -> None:
        self.bootstrap, self.seed = bootstrap, seed

    @property
    def estimator(self) -> Mapping[str, Any]:
        """Unbiased covariances; number and seed of the bootstrap samples."""
        return {"ddof": 1, "bootstrap": self.bootstrap, "bootstrap_seed": self.seed, "version": 1}

    def __call__(self, sets: Mapping[Role, Features]) -> dict[str, Estimate]:
        """Estimate the four distances; without generated images the floor alone."""
        real, heldout = moments(sets["real"].features), moments(sets["heldout"].features)
        estimates = {"fd_floor": Estimate(distance(real, heldout))}
        if "fake" not in sets:
            return estimates
        fake = moments(sets["fake"].features)
        plain = distance(real, fake)
        estimates["fd"] = Estimate(plain)
        estimates["fd_heldout"] = Estimate(distance(heldout, fake))
        if self.bootstrap > 1:
            drawn = torch.tensor(
                resampled_distances(
                    sets["real"].features, sets["fake"].features, self.bootstrap, self.seed
                ),
                dtype=torch.float64,
            )
            sd = float(drawn.std())
            estimates["fd"] = Estimate.within(plain, sd)
            estimates["fd_bc"] = Estimate.within(2 * plain - float(drawn.mean()), sd)
        return estimates
