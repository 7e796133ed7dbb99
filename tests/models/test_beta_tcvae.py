"""beta-TCVAE: the total correlation in closed form, and the loss by plain autograd."""

import copy
import math

import torch
from torch.distributions import MultivariateNormal, Normal

from fixtures.rows import assert_gradients, build, gradients_of, images_for, train
from genbench.losses.variational import total_correlation


def test_the_total_correlation_of_gaussians_is_the_log_determinant_of_their_correlation():
    """Posterior means ~ N(0, S - v I) under variance v: q(z) is N(0, S)."""
    torch.manual_seed(0)
    covariance, v = torch.tensor([[1.0, 0.8], [0.8, 1.0]]), 0.1
    mu = MultivariateNormal(torch.zeros(2), covariance - v * torch.eye(2)).sample((3000,))
    z, logvar = mu + math.sqrt(v) * torch.randn_like(mu), torch.full_like(mu, math.log(v))
    expected = -0.5 * math.log(1 - 0.8**2)
    assert abs(total_correlation(z, mu, logvar).item() - expected) < 0.06  # 0.51


def test_it_is_0_where_all_posteriors_are_one_product():
    torch.manual_seed(0)
    z, mu, logvar = torch.randn(50, 4), torch.zeros(50, 4), torch.zeros(50, 4)
    torch.testing.assert_close(
        total_correlation(z, mu, logvar), torch.tensor(0.0), atol=1e-5, rtol=0
    )


def by_loops(z, mu, logvar):
    """log of the mean over images j of q(z_i | x_j), and of each coordinate: the definition."""
    q, count, total = Normal(mu, (logvar / 2).exp()), len(z), 0
    for one in z:
        each = q.log_prob(one)  # (M, d)
        joint = each.sum(1).exp().mean().log()
        total = total + joint - each.exp().mean(0).log().sum()
    return total / count


def test_the_autoencoder_follows_its_three_terms():
    torch.manual_seed(0)
    model = build("beta-tcvae", "model.beta=4")
    images, before = images_for(model), copy.deepcopy(model)
    ((_, _, gradients),) = train(model, [images]).steps
    before.draws.begin(0)
    mu, logvar = before.encoder(images)
    z = mu + (logvar / 2).exp() * before.noise(12, before.latent_dim)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1).mean()
    log_prob = before.likelihood.log_prob(images, before.decoder(z)).mean()
    loss = kl - log_prob + 3 * by_loops(z, mu, logvar)
    expected = gradients_of(loss, before, "encoder", "decoder", "likelihood")
    assert_gradients(gradients, expected)
