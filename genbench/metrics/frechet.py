"""Frechet distance between Gaussians fitted to two sets of features, Heusel et al. 2017.

https://arxiv.org/abs/1706.08500, section 3. Called FID only in the features of the 2015 Inception.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite

BLOCK = 4096  # rows that are in float64 at a time


class Moments(NamedTuple):
    """Mean (D,) and unbiased covariance (D, D), float64."""

    mean: Tensor
    covariance: Tensor


def moments(features: Tensor, counts: Tensor | None = None) -> Moments:
    """Fit a Gaussian to rows (N, D), row i taken counts[i] times; the mean goes off first.

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
    """X^T X of (N, D); numpy's BLAS computes one half of it, PyTorch's both."""
    if rows.device.type == "cpu":
        array = rows.numpy()
        return torch.from_numpy(array.T @ array)
    gram: Tensor = rows.T @ rows
    return gram


def factor(covariance: Tensor) -> Tensor:
    """Find a matrix F with F F^T = S: Cholesky's, or by eigenvectors where S has no full rank."""
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed):
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp_min(0).sqrt()
    return root


def distance(a: Moments, b: Moments) -> float:
    """|m - n|^2 + Tr(S + T - 2 (S T)^(1/2)), by the eigenvalues of F^T T F, where F F^T = S.

    S T and F^T T F have the same eigenvalues. Not clipped: where covariances have no full rank it may
    be below 0 by about 1e-6.
    """
    inner = _between(factor(a.covariance), b.covariance)
    cross = torch.linalg.eigvalsh(inner).clamp_min(0).sqrt().sum()
    traces = a.covariance.trace() + b.covariance.trace()
    return float((a.mean - b.mean).square().sum() + traces - 2 * cross)


def _between(root: Tensor, covariance: Tensor) -> Tensor:
    """Compute the lower half of F^T T F: on a CPU by LAPACK, which needs a third of the time.

    Its dsygst knows that F is triangular and the result symmetric; PyTorch has no such function.
    """
    triangular = not bool(root.triu(1).any())
    if root.device.type == "cpu" and triangular:
        from scipy.linalg.lapack import dsygst  # late: whoever trains does not need it

        # Fortran's order is the transpose of ours: with U = F^T it is U T U^T that we ask for
        inner, problem = dsygst(covariance.numpy().T, root.numpy().T, itype=2, lower=0)
        assert problem == 0, f"dsygst: argument {-problem}"
        return torch.from_numpy(inner.T)
    product: Tensor = root.T @ covariance @ root
    return (product + product.T) / 2


def resampled_distances(a: Tensor, b: Tensor, times: int, seed: int) -> list[float]:
    """Distances after both sets are drawn anew with replacement, by a generator of their own.

    Their quantiles bound nothing: resampling adds the bias of N once more (use their mean and
    standard deviation).
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: Tensor) -> Moments:
        indices = torch.randint(len(rows), (len(rows),), generator=generator)
        return moments(rows, torch.bincount(indices, minlength=len(rows)))

    return [distance(drawn(a), drawn(b)) for _ in range(times)]


class FrechetDistance(FeatureMetric):
    """Distance to the training images, its bias-corrected form, and the same to held-out ones.

    The plain value is biased by about c / N, with a c of the generator's own. `fd_bc` takes the bias
    off as far as resampling shows it, which is nearly all of it from N = 10 D images on: 2 fd - mean
    of `bootstrap` resampled distances. The floor is the distance of the training images to the
    held-out ones.
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
        """Unbiased covariances; the bootstrap's size."""
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
