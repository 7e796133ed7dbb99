"""Annealed importance sampling where latents come from another prior: against the exact log p(x)."""

from functools import partial

import pytest
import torch
from torch.distributions import MultivariateNormal

from fixtures.evaluation import make_evaluation
from fixtures.likelihood import CPU, PCA, D, Given, K
from genbench.metrics.ais import AnnealedImportance
from genbench.metrics.annealing import Annealer, FromDensity, schedule, simulate
from genbench.priors.aggregated import Aggregated
from genbench.priors.fitting import fit
from genbench.priors.mixture import Mixture
from genbench.priors.truncated import Truncated


def one_gaussian():
    """A mixture of one component, N(m, S), far from N(0, I)."""
    generator = torch.Generator().manual_seed(3)
    factor = torch.tril(torch.randn(K, K, generator=generator, dtype=torch.float64), -1) * 0.1
    factor += 0.8 * torch.eye(K, dtype=torch.float64)
    means = torch.full((1, K), 1.0, dtype=torch.float64)
    prior = Mixture(1)
    weights = torch.ones(1, dtype=torch.float64)
    prior.tensors = {"weights": weights, "means": means, "scales": factor[None]}
    return prior, means[0], factor @ factor.T


def test_both_estimates_close_on_the_exact_value_under_a_gaussian_that_is_not_standard():
    model, variance = PCA(), 0.3
    prior, mean, covariance = one_gaussian()
    setting = Annealer(
        decode=lambda z: model.sample(z).flatten(1),
        latent_dim=K,
        variance=variance,
        leapfrogs=5,
        betas=schedule(60),
        chains=8,
        pilot_chains=2,
        decoded_at_once=4096,
        device=CPU,
        on_move=lambda: None,
        latents=FromDensity(prior.log_prob, prior.draw),
    )
    draws = torch.Generator().manual_seed(5)
    z, x = simulate(setting, 5, draws)
    steps = setting.steps(x, draws)
    W, b = model.W.double(), model.b.double()
    full = W @ covariance @ W.T + variance * torch.eye(D, dtype=torch.float64)
    exact = MultivariateNormal(W @ mean + b, full).log_prob(x.double())
    below = float((setting.forward(x, steps, draws) - exact).mean())
    above = float((setting.backward(x, z, steps, draws) - exact).mean())
    assert -1.5 < below < 0.2
    assert -0.2 < above < 1.5
    normal = MultivariateNormal(b, W @ W.T + variance * torch.eye(D, dtype=torch.float64))
    assert abs(float((normal.log_prob(x.double()) - exact).mean())) > 2  # N(0, I) is another model


def test_slope_and_energy_are_those_of_the_density():
    prior, mean, covariance = one_gaussian()
    latents = FromDensity(prior.log_prob, prior.draw)
    z = torch.randn(5, K, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.solve(covariance, (z.double() - mean).T).T
    assert torch.allclose(latents.slope(z), expected.float(), atol=1e-4)
    outside = Truncated(threshold=0.5)
    latents = FromDensity(outside.log_prob, partial(outside.draw))
    far = torch.full((1, K), 0.7)
    assert float(latents.energy(far)) == torch.inf  # a move to it is rejected
    assert bool(latents.slope(far).isfinite().all())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "scored"),
    [(Mixture(1, codes=40), True), (Truncated(scale=0.5), True), (Aggregated(codes=40), False)],
    ids=lambda value: getattr(value, "kind", value),
)
def test_it_is_offered_for_priors_with_a_density_and_names_them(prior, scored, tmp_path):
    sampling = AnnealedImportance(
        enabled=True,
        images=3,
        simulated=2,
        chains=2,
        pilot_chains=1,
        temperatures=4,
        leapfrogs=2,
        variance=0.1,
    )
    evaluation = make_evaluation(tmp_path, metrics={}, likelihoods={"ais": sampling})
    model, data = PCA(), Given(train=20)
    model.decoder = torch.nn.Identity()
    fitted = fit(prior, model, data)
    found = {score.name: score for score in evaluation(model, data, CPU, prior=fitted)}
    assert ("nll_ais" in found) == scored
    if scored:
        assert found["nll_ais"].card["prior"] == fitted.protocol
        plain = {score.name: score for score in evaluation(model, data, CPU)}
        assert "prior" not in plain["nll_ais"].card
        assert plain["nll_ais"].value != found["nll_ais"].value
