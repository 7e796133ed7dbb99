"""Kernel distance between two sets of features, Binkowski et al. 2018.

https://arxiv.org/abs/1801.01401, section 4: squared MMD with the kernel (x.y / D + 1)^3. Unbiased for
any number of images, so that for equal distributions it scatters around 0 and may be negative.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genbench.metrics.contract import Estimate, FeatureMetric, Features, Quantity, Role
from genbench.metrics.features import check_finite, subset
from genbench.ranges import whole

BLOCK = 2048  # rows and columns of a kernel matrix in memory


def kernel_sum(x: Tensor, y: Tensor, *, same: bool = False) -> float:
    """Sum of (x.y / D + 1)^3 over all pairs of rows; `same` (x is y) leaves out the diagonal."""
    total = x.new_zeros((), dtype=torch.float64)
    for i, rows in enumerate(torch.split(x, BLOCK)):
        for j, columns in enumerate(torch.split(y, BLOCK)):
            gram = (rows.double() @ columns.double().T / x.shape[1] + 1) ** 3
            total += gram.sum() - gram.trace() if same and i == j else gram.sum()
    return float(total)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Squared MMD as the full U-statistic. Raises ValueError for NaN, infinity and N < 2."""
    check_finite(x)
    check_finite(y)
    n, m = len(x), len(y)
    within = kernel_sum(x, x, same=True) / (n * (n - 1))
    within += kernel_sum(y, y, same=True) / (m * (m - 1))
    return within - 2 * kernel_sum(x, y) / (n * m)


def standard_error(x: Tensor, y: Tensor, blocks: int, seed: int) -> float | None:
    """Standard error from disjoint blocks of both sets; too large if the distance is nearly 0.

    None if the sets do not fill two blocks of two rows each.
    """
    blocks = min(blocks, len(x) // 2, len(y) // 2)
    if blocks < 2:
        return None
    pairs = zip(subset_blocks(x, blocks, seed), subset_blocks(y, blocks, seed + 1), strict=True)
    found = torch.tensor([kernel_distance(a, b) for a, b in pairs], dtype=torch.float64)
    return float(found.std() / blocks**0.5)


def subset_blocks(rows: Tensor, blocks: int, seed: int) -> tuple[Tensor, ...]:
    """Rows in an order that depends on the seed, split into blocks of nearly equal size."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return torch.tensor_split(rows[order.to(rows.device)], blocks)


class KernelDistance(FeatureMetric):
    """Distance to the training images, with a standard error from `blocks` disjoint blocks.

    Of a larger set a random subset of `max_images` is used: the estimate stays unbiased.
    """

    quantities = (Quantity("kid", ("fake", "real"), False),)

    def __init__(self, blocks: int = 10, max_images: int = 10_000, seed: int = 0) -> None:
        whole("kernel.blocks", blocks)
        whole("kernel.max_images", max_images, 2)
        self.blocks, self.max_images, self.seed = blocks, max_images, seed

    @property
    def estimator(self) -> Mapping[str, Any]:
        """Kernel, statistic, blocks and subsets."""
        return {
            "kernel": "(x.y / D + 1)^3",
            "statistic": "U",
            "blocks": self.blocks,
            "max_images": self.max_images,
            "seed": self.seed,
            "version": 1,
        }

    def __call__(self, sets: Mapping[Role, Features]) -> dict[str, Estimate]:
        """Estimate the squared distance."""
        real = subset(sets["real"].features, self.max_images, self.seed)
        fake = subset(sets["fake"].features, self.max_images, self.seed)
        error = standard_error(real, fake, self.blocks, self.seed)
        interval = f"1.96 standard errors over images, from {self.blocks} blocks: about 93 %"
        return {"kid": Estimate.within(kernel_distance(real, fake), error, interval)}
