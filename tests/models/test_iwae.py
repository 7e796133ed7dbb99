"""The importance-weighted bound: what it is with one draw, and that its gradient is the weighted one."""

import copy
import math

import pytest
import torch
from torch.distributions import Normal

from fixtures.rows import assert_gradients, build, gradients_of, images_for, train
from genbench.losses.variational import importance_log_weights, importance_weighted_bound
from genbench.models.contract import HasLikelihood


def log_weights(model, images, noise):
    """log p(x | z) + log p(z) - log q(z | x) by torch's distributions, draw by draw: (N, K)."""
    mu, logvar = model.encoder(images)
    q, rows = Normal(mu, (logvar / 2).exp()), []
    for eps in noise.unbind(1):
        z = mu + (logvar / 2).exp() * eps
        log_prob = model.likelihood.log_prob(images, model.decoder(z))
        rows.append(log_prob + (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(1))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("draws", [1, 5])
def test_the_autoencoder_follows_the_weighted_gradients_of_its_draws(draws):
    """Burda et al. 2016, eq. 14: sum_k w~_k grad log w_k, the normalised weights held fixed."""
    torch.manual_seed(0)
    model = build("iwae", f"model.importance_draws={draws}")
    images, before = images_for(model), copy.deepcopy(model)
    ((_, _, gradients),) = train(model, [images]).steps
    before.draws.begin(0)
    log_w = log_weights(before, images, before.noise(12, draws, before.latent_dim))
    loss = -(log_w.softmax(1).detach() * log_w).sum(1).mean()
    expected = gradients_of(loss, before, "encoder", "decoder", "likelihood")
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5)
    assert_gradients(gradients, {})


def test_with_one_draw_it_is_the_elbo_whose_rate_is_estimated_by_that_draw():
    torch.manual_seed(0)
    model = build("iwae", "model.importance_draws=1")
    images = images_for(model, 2).repeat(2000, 1, 1, 1)
    with torch.no_grad():
        bound = -model.loss(images)
        model.draws.begin(0)
        noise = model.noise(len(images), 1, model.latent_dim)[:, 0]
        rate, distortion = model.elbo(images, noise)
        spread = log_weights(model, images, noise[:, None])[:, 0] + rate + distortion
    error = 4 * spread.std().item() / math.sqrt(len(images))
    assert abs(bound + (rate + distortion).mean()).item() < error


def test_more_draws_make_a_wrong_posterior_tighter_and_the_exact_one_no_better():
    """A linear Gaussian model, for which log p(x) is known."""
    torch.manual_seed(0)
    a, s, x = 1.7, 0.6, 1.1
    evidence = Normal(0.0, math.sqrt(a * a + s * s)).log_prob(torch.tensor(x))
    variance = 1 / (1 + a * a / (s * s))
    exact = torch.tensor([[variance * a * x / (s * s)]]), torch.tensor([[math.log(variance)]])
    wrong = torch.zeros(1, 1), torch.zeros(1, 1)

    def bound(mu, logvar, draws):
        noise = torch.randn(1000, draws, 1)
        z = mu + (logvar / 2).exp() * noise
        log_prob = Normal(a * z[..., 0], s).log_prob(torch.tensor(x))
        many = mu.expand(1000, 1), logvar.expand(1000, 1)
        return importance_weighted_bound(importance_log_weights(log_prob, noise, *many))

    torch.testing.assert_close(bound(*exact, 3), evidence.expand(1000))
    one, five, fifty = (bound(*wrong, draws).mean() for draws in (1, 5, 50))
    assert one < five < fifty < evidence


def test_it_is_scored_as_a_vae():
    assert isinstance(build("iwae"), HasLikelihood)
