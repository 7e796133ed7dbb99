"""Frechet distance between Gaussians fitted to two sets of features, Heusel et al. 2017.

https://arxiv.org/abs/1706.08500, section 3. Called FID only for features of the 2015 Inception.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite

BLOCK = 4096  # rows converted to float64 at a time

LEAST_RATIO = 10  # images per feature from which the bias is known well enough to be subtracted

FLOOR_GROUPS = 10  # of held-out images, each left out once for the floor's standard error

LEAST_HELDOUT = 8  # held-out images from which there are halves without a group of them

# What bounds cover
AT_THIS_NUMBER = "95 % or more for the mean at this number of images, not for infinitely many"
UNBIASED = "95 % or more for infinitely many images"


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


def expected_distance(real: Moments, heldout: Tensor, count: int, seed: int) -> float:
    """Mean distance of `real` to `count` new images of the distribution of held-out ones (M, D).

    For M >= count the mean over disjoint subsets of held-out images. For fewer the distance to all of
    them is extrapolated: the mean distance to k images is a + c / k for k well above D, and c comes
    from halves. Resampling would not do: M images drawn `count` times have the bias of M.
    """
    order = torch.randperm(len(heldout), generator=torch.Generator().manual_seed(seed))
    rows = heldout[order.to(heldout.device)]

    def mean_of(parts: Iterable[Tensor]) -> float:
        found = [distance(real, moments(part)) for part in parts]
        return sum(found) / len(found)

    if len(rows) >= count:
        subsets = len(rows) // count
        return mean_of(torch.split(rows[: subsets * count], count))
    half = len(rows) // 2
    whole, halves = mean_of([rows]), mean_of([rows[:half], rows[half : 2 * half]])
    slope = (halves - whole) / (1 / half - 1 / len(rows))
    return whole - slope * (1 / len(rows) - 1 / count)


def jackknife(estimate: Callable[[Tensor], float], rows: Tensor, groups: int, seed: int) -> float:
    """Standard error of an estimate of rows (N, D), from leaving out each of `groups` groups of them."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    parts = [part.to(rows.device) for part in torch.tensor_split(order, groups)]
    found = torch.tensor(
        [estimate(rows[torch.cat(parts[:i] + parts[i + 1 :])]) for i in range(groups)],
        dtype=torch.float64,
    )
    return float(((groups - 1) * found.var(correction=0)).sqrt())


class FrechetDistance(FeatureMetric):
    """Distance to the training images, its bias-corrected form, and the same to held-out ones.

    The plain value `fd` is biased by about c / N, and c differs between generators. `fd_bc` subtracts
    the bootstrap estimate of the bias, which is nearly all of it for N >= 10 D: 2 fd - mean of
    `bootstrap` resampled distances; for a smaller N it has no value. `fd_floor` is what new real
    images would get in place of the generated ones, at their number; `fd_real` the distance of training
    to held-out images at the number that there is.
    """

    quantities = (
        Quantity("fd", ("fake", "real"), False),
        Quantity("fd_bc", ("fake", "real"), False),
        Quantity("fd_heldout", ("fake", "heldout"), False),
        Quantity("fd_floor", ("heldout", "real"), None, floor=True),
        Quantity("fd_real", ("heldout", "real"), None),
    )

    def __init__(self, bootstrap: int = 30, seed: int = 0) -> None:
        self.bootstrap, self.seed = bootstrap, seed

    def estimator_of(self, quantity: str) -> Mapping[str, Any]:
        """Unbiased covariances; number and seed of the resampled sets where the value has them."""
        if quantity == "fd_bc":
            drawn = {"bootstrap": self.bootstrap, "bootstrap_seed": self.seed}
            return {"ddof": 1, **drawn, "images_per_dimension": LEAST_RATIO, "version": 2}
        if quantity == "fd_floor":
            return {"ddof": 1, "subsets_seed": self.seed, "version": 2}
        return {"ddof": 1, "version": 1}

    def __call__(self, sets: Mapping[Role, Features]) -> dict[str, Estimate]:
        """Estimate the distances; without generated images that of real ones alone."""
        real, heldout = moments(sets["real"].features), moments(sets["heldout"].features)
        estimates = {"fd_real": Estimate(distance(real, heldout))}
        if "fake" not in sets:
            return estimates
        fake = moments(sets["fake"].features)
        plain = distance(real, fake)
        estimates["fd_heldout"] = Estimate(distance(heldout, fake))
        if self.bootstrap < 2:
            status = f"not computed: evaluation.metrics.frechet.bootstrap={self.bootstrap}"
            return estimates | {"fd": Estimate(plain), "fd_bc": Estimate(None, status=status)}
        rows, others = sets["real"].features, sets["fake"].features
        drawn = torch.tensor(
            resampled_distances(rows, others, self.bootstrap, self.seed), dtype=torch.float64
        )
        sd = float(drawn.std())
        estimates["fd"] = Estimate.within(plain, sd, AT_THIS_NUMBER)
        estimates["fd_bc"] = Estimate.within(2 * plain - float(drawn.mean()), sd, UNBIASED)
        count, width = min(len(rows), len(others)), rows.shape[1]
        if count < LEAST_RATIO * width:
            status = f"too few images: {count} are below {LEAST_RATIO} x {width} features"
            estimates["fd_bc"] = Estimate(None, status=status)
        return estimates

    def floors(self, sets: Mapping[Role, Features], num_samples: int) -> dict[str, Estimate]:
        """Estimate the distance of `num_samples` new images to the training images."""
        real, heldout = moments(sets["real"].features), sets["heldout"].features
        if len(heldout) < LEAST_HELDOUT:
            status = f"too few images: {len(heldout)} held-out ones are below {LEAST_HELDOUT}"
            return {"fd_floor": Estimate(None, status=status)}

        def estimate(rows: Tensor) -> float:
            return expected_distance(real, rows, num_samples, self.seed)

        error = None
        if self.bootstrap > 1:
            groups = min(FLOOR_GROUPS, len(heldout) // 2)
            error = jackknife(estimate, heldout, groups, self.seed)
        return {"fd_floor": Estimate.within(estimate(heldout), error, AT_THIS_NUMBER)}
