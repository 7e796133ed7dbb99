"""Terms of the evidence lower bound and of its relatives, in nats."""

import math

import torch
from torch import Tensor


def reparameterize(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z = mu + exp(logvar / 2) noise, ~ N(mu, exp(logvar)) for noise ~ N(0, I), all (N, d)."""
    return mu + noise * (0.5 * logvar).exp()


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)) of (N, d), as (N,): Kingma and Welling 2014, appendix B."""
    mu, logvar = mu.float(), logvar.float()
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)


def importance_log_weights(log_prob: Tensor, noise: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log p(x | z) + log p(z) - log q(z | x) for z = mu + sigma * noise, K draws each: (N, K).

    `log_prob` is (N, K), `noise` (N, K, d), `mu` and `logvar` (N, d).
    """
    z = reparameterize(mu[:, None], logvar[:, None], noise)
    return log_prob + 0.5 * (noise.square() + logvar[:, None] - z.square()).sum(2)


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """log (1 / K) sum_k w_k of (N, K), as (N,): Burda et al. 2016, eq. 8."""
    return torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])


def total_correlation(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z) || prod_j q(z_j)) in nats, a scalar, for draws z_i ~ N(mu_i, exp(logvar_i)), all (M, d).

    Chen et al. 2018, https://arxiv.org/abs/1802.04942, section 4.1: q(z) is taken for the mean of the
    batch's posteriors. Their minibatch-weighted estimate with N images differs by the constant
    (d - 1) log N, and so has the same gradient.
    """
    z, mu, logvar = z.float(), mu.float(), logvar.float()
    square = (z[:, None] - mu[None]).square() * (-logvar)[None].exp()
    log_q = -0.5 * (
        square + logvar[None] + math.log(2 * math.pi)
    )  # (M, M, d): of z_i under image j
    count, dims = len(z), z.shape[1]
    joint = torch.logsumexp(log_q.sum(2), 1)
    marginals = torch.logsumexp(log_q, 1).sum(1)
    return (joint - marginals).mean() + (dims - 1) * math.log(count)
