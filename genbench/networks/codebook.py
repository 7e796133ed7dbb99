"""A codebook that follows the vectors that it quantises."""

import torch
from torch import Tensor, nn

from genbench.ranges import number, whole

SMOOTHING = 1e-5  # added to every code's count


class Codebook(nn.Module):
    """K vectors, each an exponential mean of those that are nearest to it.

    Van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A.1, with the counts smoothed as in
    the authors' code (https://github.com/google-deepmind/sonnet). It has no parameters: `follow` moves it.
    Vectors begin as N(0, 1) / K, counts at 1.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, dim: int, decay: float) -> None:
        super().__init__()
        whole("codebook.codes", codes, 2)
        whole("codebook.dim", dim)
        number("codebook.decay", decay, 0, 1)
        self.codes, self.dim, self.decay = codes, dim, decay
        vectors = torch.randn(codes, dim) / codes
        self.register_buffer("vectors", vectors)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", vectors.clone())

    def nearest(self, values: Tensor) -> Tensor:
        """Numbers of the nearest codes, (...), of values (..., dim)."""
        flat = values.detach().float().flatten(0, -2)
        squares = (flat[:, None] - self.vectors[None]).square().sum(2)
        return squares.argmin(1).view(values.shape[:-1])

    def forward(self, numbers: Tensor) -> Tensor:
        """Vectors (..., dim) of codes (...)."""
        return self.vectors[numbers]

    @torch.no_grad()
    def follow(self, values: Tensor, numbers: Tensor) -> None:
        """Move counts and sums towards those of values (..., dim) with codes (...), and the vectors along."""
        every = torch.arange(self.codes, device=values.device)
        hot = (numbers.flatten()[:, None] == every).float()
        flat = values.detach().float().flatten(0, -2)
        with torch.autocast(values.device.type, enabled=False):
            sums = hot.T @ flat
        self.counts.lerp_(hot.sum(0), 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + SMOOTHING) / (total + self.codes * SMOOTHING) * total
        self.vectors.copy_(self.sums / smoothed[:, None])

    def usage(self) -> tuple[Tensor, Tensor]:
        """Share of the codes with a mean count of a hundredth or more, and the counts' perplexity."""
        share = self.counts / self.counts.sum()
        entropy = -torch.xlogy(share, share).sum()
        return (self.counts >= 0.01).float().mean(), entropy.exp()
