"""Observation models p(x | decoder output), in nats per image, summed over pixels, in float32.

The choice fixes what an ELBO means: numbers under different tags are never comparable.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.errors import UserMistake


class Likelihood(nn.Module, ABC):
    """An observation model p(x | decoder output)."""

    tag: str  # names the likelihood in scores: numbers with different tags are not comparable
    discrete: bool  # a probability of the stored levels, not a density

    @abstractmethod
    def log_prob(self, images: Tensor, output: Tensor) -> Tensor:
        """Log p(images | raw decoder output), both (N, C, H, W), in nats per image, (N,)."""

    @abstractmethod
    def image(self, output: Tensor) -> Tensor:
        """Mean image in [-1, 1] of raw decoder output."""


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise UserMistake(f"{name}={value} is not a scale: it must be above 0")
    return value


class DiscretizedLogistic(Likelihood):
    """Logistic of one learned scale, integrated over the bins of the stored levels.

    A probability of the image as it is stored, hence comparable between models and turned into bits
    per dimension: Kingma et al. 2016, https://arxiv.org/abs/1606.04934. The edge bins are open, so
    that a mean beyond the range costs nothing.
    """

    discrete = True

    def __init__(self, levels: int, scale: float = 0.3) -> None:
        super().__init__()
        self.tag = f"discretized-logistic-{levels}"
        self.half_bin = 1 / (levels - 1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_positive("scale", scale))))

    def log_prob(self, images: Tensor, output: Tensor) -> Tensor:
        """Sum of log [F(x + h) - F(x - h)], F the logistic's distribution function."""
        centred, half = images.float() - output.float(), self.half_bin
        inverse_scale = (-self.log_scale.clamp_min(-7)).exp()
        upper, lower = (centred + half) * inverse_scale, (centred - half) * inverse_scale
        # log(sigmoid(u) - sigmoid(l)) without cancellation
        middle = (
            F.logsigmoid(upper)
            + F.logsigmoid(-lower)
            + torch.log(-torch.expm1(-2 * half * inverse_scale))
        )
        first, last = images < half - 1, images > 1 - half
        log_mass = torch.where(
            first, F.logsigmoid(upper), torch.where(last, F.logsigmoid(-lower), middle)
        )
        return log_mass.flatten(1).sum(1)

    def image(self, output: Tensor) -> Tensor:
        """Clamp the mean to the range of images."""
        return output.clamp(-1, 1)


class Gaussian(Likelihood):
    """N(output, sigma^2), one sigma for all pixels: sigma-VAE, Rybkin et al. 2021.

    https://arxiv.org/abs/2006.13202. A learned sigma should start large: the path from there anneals
    the reconstruction term.
    """

    discrete = False

    def __init__(self, sigma: float = 1.0, learned: bool = True) -> None:
        super().__init__()
        self.tag = "gaussian-learned" if learned else f"gaussian-{sigma:g}"
        log_sigma = torch.tensor(math.log(_positive("sigma", sigma)))
        self.log_sigma = nn.Parameter(log_sigma, requires_grad=learned)

    def log_prob(self, images: Tensor, output: Tensor) -> Tensor:
        """-|x - m|^2 / 2 sigma^2 - D log sigma - D/2 log 2 pi."""
        log_sigma = self.log_sigma.clamp_min(-6)
        error = (images.float() - output.float()) * (-log_sigma).exp()
        per_pixel = -0.5 * error.square() - log_sigma - 0.5 * math.log(2 * math.pi)
        return per_pixel.flatten(1).sum(1)

    def image(self, output: Tensor) -> Tensor:
        """Clamp the mean to the range of images."""
        return output.clamp(-1, 1)


class Bernoulli(Likelihood):
    """Independent coins: a likelihood of images with two levels only.

    On grey images its cross-entropy is a loss and no likelihood (the constant of the continuous
    Bernoulli is missing), so it refuses them.
    """

    discrete = True

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels != 2:
            raise UserMistake(
                f"the Bernoulli likelihood is defined for images of 2 levels, not {levels}: binarise "
                "the dataset, or choose the discretized logistic or the Gaussian likelihood"
            )
        self.tag = "bernoulli"

    def log_prob(self, images: Tensor, output: Tensor) -> Tensor:
        """x log p + (1 - x) log(1 - p), p = sigmoid(output), x in {0, 1}."""
        ones = (images.float() + 1) / 2
        losses = F.binary_cross_entropy_with_logits(output.float(), ones, reduction="none")
        return -losses.flatten(1).sum(1)

    def image(self, output: Tensor) -> Tensor:
        """Twice the probability of a one, less one."""
        return 2 * torch.sigmoid(output) - 1
