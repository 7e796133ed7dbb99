"""Observation models p(x | decoder output), in nats per image, summed over pixels, in float32.

ELBOs under different likelihoods are not comparable; the tag tells which one a score belongs to.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.errors import UserMistake


class Likelihood(nn.Module, ABC):
    """An observation model p(x | decoder output)."""

    tag: str  # part of the names of scores under this likelihood
    discrete: bool  # True: a probability of the stored levels; False: a density

    @abstractmethod
    def log_prob(self, images: Tensor, output: Tensor) -> Tensor:
        """log p(images | output) in nats per image, (N,), for images and decoder output (N, C, H, W)."""

    @abstractmethod
    def image(self, output: Tensor) -> Tensor:
        """Mean image in [-1, 1] for decoder output (N, C, H, W)."""

    def draw(self, output: Tensor, uniform: Tensor) -> Tensor:
        """Image drawn from p(x | output), by the inverse CDF at `uniform` (N, C, H, W) in (0, 1)."""
        raise UserMistake(
            f"evaluation.pixels=sample: {type(self).__name__} has no method `draw` to draw images: "
            "write one, or score the means with evaluation.pixels=mean"
        )


# Soft bounds of learned scales; images are in [-1, 1]
SMALLEST_LOG_SCALE, SMALLEST_LOG_SIGMA = -7.0, -6.0
SMALLEST_LOG_FEATURE_SIGMA = (
    -12.0
)  # features have no unit: an untrained network's are as small as e^-5
SHARPNESS = 10  # of the corner of `bounded`


def bounded(parameter: Tensor, bound: float) -> Tensor:
    """The parameter, kept above `bound` by a softplus, so that it always has a gradient.

    Equal to the parameter to the last digit from `bound` + 2 on; below, the gradient falls towards 0
    but never is 0 (a clamp's is, and what falls below a clamp stays there for ever).
    """
    soft = bound + F.softplus(parameter - bound, beta=SHARPNESS)
    return torch.where(parameter > bound + 2, parameter, soft)


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise UserMistake(f"{name}={value} is not a scale: it must be above 0")
    return value


class DiscretizedLogistic(Likelihood):
    """Logistic distribution with one learned scale, integrated over the bins of the stored levels.

    A probability of the stored image, hence comparable between models and convertible to bits per
    dimension: Kingma et al. 2016, https://arxiv.org/abs/1606.04934. The bins at both ends extend to
    infinity, so that a mean outside of the range costs nothing.
    """

    discrete = True

    def __init__(self, levels: int, scale: float = 0.3) -> None:
        super().__init__()
        self.tag = f"discretized-logistic-{levels}"
        self.half_bin = 1 / (levels - 1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_positive("scale", scale))))

    def log_prob(self, images: Tensor, output: Tensor) -> Tensor:
        """Sum of log [F(x + h) - F(x - h)]; F is the logistic CDF, h half a bin."""
        centred, half = images.float() - output.float(), self.half_bin
        inverse_scale = (-bounded(self.log_scale, SMALLEST_LOG_SCALE)).exp()
        upper, lower = (centred + half) * inverse_scale, (centred - half) * inverse_scale
        # log(sigmoid(upper) - sigmoid(lower)) without cancellation
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
        """The output clamped to [-1, 1]."""
        return output.clamp(-1, 1)

    def draw(self, output: Tensor, uniform: Tensor) -> Tensor:
        """The stored level nearest to x + s log(u / (1 - u)): the bins at both ends take the tails."""
        scale = bounded(self.log_scale, SMALLEST_LOG_SCALE).exp()
        value = (output.float() + scale * torch.logit(uniform)).clamp(-1, 1)
        bin_width = 2 * self.half_bin
        return ((value + 1) / bin_width).round() * bin_width - 1


class Gaussian(Likelihood):
    """N(output, sigma^2), one sigma for all pixels: sigma-VAE, Rybkin et al. 2021.

    https://arxiv.org/abs/2006.13202. A learned sigma should start large, so that the weight of the
    reconstruction term grows during training.
    """

    discrete = False

    def __init__(self, sigma: float = 1.0, learned: bool = True) -> None:
        super().__init__()
        self.tag = "gaussian-learned" if learned else f"gaussian-{sigma:g}"
        log_sigma = torch.tensor(math.log(_positive("sigma", sigma)))
        self.log_sigma = nn.Parameter(log_sigma, requires_grad=learned)

    def log_prob(self, images: Tensor, output: Tensor) -> Tensor:
        """-|x - output|^2 / (2 sigma^2) - D log sigma - D/2 log(2 pi), D pixels times channels."""
        log_sigma = bounded(self.log_sigma, SMALLEST_LOG_SIGMA)
        error = (images.float() - output.float()) * (-log_sigma).exp()
        per_pixel = -0.5 * error.square() - log_sigma - 0.5 * math.log(2 * math.pi)
        return per_pixel.flatten(1).sum(1)

    def image(self, output: Tensor) -> Tensor:
        """The output clamped to [-1, 1]."""
        return output.clamp(-1, 1)

    def draw(self, output: Tensor, uniform: Tensor) -> Tensor:
        """The output plus sigma times the normal quantile of u; not clamped."""
        sigma = bounded(self.log_sigma, SMALLEST_LOG_SIGMA).exp()
        noise: Tensor = torch.special.ndtri(uniform)
        return output.float() + sigma * noise


class Bernoulli(Likelihood):
    """Independent Bernoulli pixels: a likelihood of images with two levels only.

    For grey images the cross-entropy is not a likelihood (it lacks the normalising constant of the
    continuous Bernoulli), so that other levels raise UserMistake.
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
        """2 sigmoid(output) - 1."""
        return 2 * torch.sigmoid(output) - 1

    def draw(self, output: Tensor, uniform: Tensor) -> Tensor:
        """1 where u < sigmoid(output), else -1."""
        return (uniform < torch.sigmoid(output.float())).float() * 2 - 1


class FeatureGaussian(nn.Module):
    """N(features of the reconstruction, sigma^2 I): L_llike of a VAE-GAN, with one learned sigma.

    The sigma-VAE of Rybkin et al. 2021, https://arxiv.org/abs/2006.13202, on features: at the best sigma,
    whose square is the mean squared error, the loss of d features is d/2 log of that error. So it does
    not depend on the unit of the features, which the discriminator changes as it trains.

    It differs from a density in two ways. Of d features of an image with D < d values, D are counted:
    features of images have no more degrees of freedom than the images, and counted in full they make
    the latents carry noise. And Adam moves log sigma `pace` times as fast as other parameters, since
    it must follow the features over several orders of magnitude; it begins at 0, as a large sigma should.
    """

    def __init__(self, pace: float = 10.0) -> None:
        super().__init__()
        self.pace = _positive("pace", pace)
        self.scaled_log_sigma = nn.Parameter(torch.zeros(()))  # log sigma / pace

    @property
    def log_sigma(self) -> Tensor:
        """Log sigma, above its soft bound."""
        return bounded(self.pace * self.scaled_log_sigma, SMALLEST_LOG_FEATURE_SIGMA)

    def log_prob(self, features: Tensor, means: Tensor, values: int) -> Tensor:
        """min(1, D / d) * sum over d of log N(features | means, sigma^2), (N,), for D = `values`.

        Features and means are (N, ...); without the constant -log(2 pi) / 2 of each feature.
        """
        log_sigma = self.log_sigma
        error = (features.float() - means.float()) * (-log_sigma).exp()
        counted = min(1.0, values / features[0].numel())
        return counted * (-0.5 * error.square() - log_sigma).flatten(1).sum(1)
