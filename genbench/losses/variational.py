"""Terms of the evidence lower bound, in nats, one value per image."""

from torch import Tensor


def reparameterize(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z = mu + exp(logvar / 2) noise, ~ N(mu, exp(logvar)) for noise ~ N(0, I), all (N, d)."""
    return mu + noise * (0.5 * logvar).exp()


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)) of (N, d), as (N,): Kingma and Welling 2014, appendix B."""
    mu, logvar = mu.float(), logvar.float()
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
