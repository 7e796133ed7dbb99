"""Adversarial losses on logits, high for real: each has a loss for D and one for G, both minimised."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F


class AdversarialLoss(Protocol):
    """A pair of losses on logits, (N,), or (N, P) of P patches."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator, a scalar."""
        ...

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        """Loss of the generator, a scalar; `real()` computes the logits of as many real images.

        It is a function so that a loss without use for them does not pay for them.
        """
        ...


class NonSaturating:
    """Non-saturating loss, Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log D(x) - log(1 - D(G(z))), D = sigmoid(logit)."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        """-log D(G(z))."""
        return F.softplus(-fake).mean()


class Minimax(NonSaturating):
    """The zero-sum game of the same paper; its gradient vanishes for confidently detected fakes."""

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        """+log(1 - D(G(z)))."""
        return -F.softplus(fake).mean()


class Hinge:
    """Hinge loss, Lim and Ye 2017, https://arxiv.org/abs/1705.02894."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 - D(x)) + max(0, 1 + D(G(z)))."""
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        """-D(G(z))."""
        return -fake.mean()


class LeastSquares:
    """Least squares with labels 0 and 1, Mao et al. 2017, https://arxiv.org/abs/1611.04076."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """(D(x) - 1)^2 / 2 + D(G(z))^2 / 2."""
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        """(D(G(z)) - 1)^2 / 2."""
        return 0.5 * (fake - 1).square().mean()


class Wasserstein:
    """Wasserstein loss, Arjovsky et al. 2017; needs a gradient penalty (`penalty.py`)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """D(G(z)) - D(x)."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        """-D(G(z))."""
        return -fake.mean()


class Relativistic:
    """Relativistic pairing loss, Jolicoeur-Martineau 2019, https://arxiv.org/abs/1807.00734.

    The i-th real image against the i-th fake one. As in R3GAN (Huang et al. 2024,
    https://arxiv.org/abs/2501.05441) f is the logistic loss, and G's is D's with the two changed over.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log sigmoid(D(x) - D(G(z)))."""
        return F.softplus(fake - real).mean()

    def generator(self, fake: Tensor, real: Callable[[], Tensor]) -> Tensor:
        """-log sigmoid(D(G(z)) - D(x))."""
        return F.softplus(real() - fake).mean()
