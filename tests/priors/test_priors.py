"""Priors against closed forms: what they draw, and their densities."""

import pytest
import torch
from scipy import stats

from fixtures.priors import Clusters, Linear, aggregate, log_density
from genbench.errors import UserMistake
from genbench.metrics.frechet import Moments, distance, moments
from genbench.priors.aggregated import Aggregated
from genbench.priors.contract import HasDensity, Prior
from genbench.priors.fitting import fit
from genbench.priors.flow import Flow
from genbench.priors.mixture import Mixture
from genbench.priors.truncated import Truncated, curve


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def small_flow(**changes):
    return Flow(**({"codes": 4_000, "width": 64, "depth": 2, "steps": 300, "lr": 5e-3} | changes))


@pytest.fixture(scope="module")
def data():
    return Clusters()


@pytest.mark.parametrize(
    ("prior", "tolerance"),
    [
        (Mixture([1, 2, 4], codes=4_000), 0.02),
        (small_flow(), 0.08),
        (Aggregated(codes=4_000), 0.02),
    ],
)
def test_draws_have_the_moments_of_the_aggregate_posterior_where_the_prior_is_wrong(
    prior, tolerance, data
):
    model = Linear()
    mean, covariance = aggregate(model, data)
    known = Moments(mean.double(), covariance.double())
    drawn = fit(prior, model, data).draw(4_000, seeded())
    assert drawn.dtype == torch.float32
    assert distance(known, moments(drawn)) < tolerance
    wrong = moments(model.latents(4_000, seeded()))
    assert distance(known, wrong) > 1  # N(0, I), under which it would be sampled


def test_a_mixture_has_the_density_of_the_aggregate_posterior_and_finds_its_two_clusters(data):
    model = Linear()
    prior = fit(Mixture([1, 2], codes=4_000), model, data).prior
    assert prior.found["components"] == 2
    assert prior.found["held_out_nats"]["2"] > prior.found["held_out_nats"]["1"] + 0.5
    assert prior.parameters == 1 + 2 * 3 + 2 * 6
    z = fit(Aggregated(codes=4_000), model, data).draw(2_000, seeded())
    divergence = (log_density(model, data, z).double() - prior.log_prob(z)).mean()
    assert (
        0 <= divergence < 0.02
    )  # KL of the aggregate posterior to the fit, which has 19 parameters


def test_codes_that_it_was_not_fitted_to_choose_the_number_of_components():
    """Of one Gaussian: more components are always likelier for the codes that they were fitted to."""
    mixture = Mixture([1, 12])
    mixture.fit(torch.randn(150, 2, generator=torch.Generator().manual_seed(0)), torch.Generator())
    held_out = mixture.found["held_out_nats"]
    assert mixture.found["components"] == 1 and held_out["1"] > held_out["12"]


def test_the_density_of_a_mixture_is_that_of_torch_and_its_draws_are_of_it():
    prior = Mixture(2)
    scales = torch.tensor([[[1.0, 0], [0.5, 0.3]], [[0.2, 0], [-0.1, 2.0]]], dtype=torch.float64)
    means = torch.tensor([[1.0, -1.0], [0.0, 3.0]], dtype=torch.float64)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    prior.tensors = {"weights": weights, "means": means, "scales": scales}
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights),
        torch.distributions.MultivariateNormal(means, scale_tril=scales),
    )
    z = torch.randn(50, 2, generator=seeded()) * 2
    assert torch.allclose(prior.log_prob(z), reference.log_prob(z.double()))
    drawn = prior.draw(50_000, seeded()).double()
    covariance = sum(
        w * (s @ s.T + m.outer(m)) for w, s, m in zip(weights, scales, means, strict=True)
    )
    mean = weights @ means
    assert torch.allclose(drawn.mean(0), mean, atol=0.03)
    assert torch.allclose(drawn.T.cov(), covariance - mean.outer(mean), atol=0.06)


def test_a_flow_does_not_change_what_a_gaussian_is():
    """Of codes from N(m, S) it is the affine map: third moments stay 0, dependence is kept."""
    factor = torch.tensor([[1.0, 0.0], [0.8, 0.2]])
    codes = torch.randn(4_000, 2, generator=seeded()) @ factor.T + torch.tensor([3.0, -1.0])
    prior = small_flow()
    prior.fit(codes, seeded())
    drawn = prior.draw(20_000, seeded(6))
    assert torch.allclose(drawn.mean(0), codes.mean(0), atol=0.06)
    assert torch.allclose(drawn.T.cov(), codes.T.cov(), atol=0.08)
    inside = ((drawn - codes.mean(0)) / codes.std(0))[:, 0]
    assert abs(float((inside**3).mean())) < 0.15


def test_the_aggregate_gives_every_code_before_any_comes_again():
    prior = Aggregated(codes=10)
    codes = torch.arange(10.0)[:, None]
    prior.fit(codes, seeded())
    drawn = prior.draw(20, seeded())
    assert drawn[:10].sort(0).values.equal(codes)
    assert drawn[10:].sort(0).values.equal(codes)
    assert not drawn[:10].equal(drawn[10:])


@pytest.mark.parametrize("given", [{"scale": 0.6}, {"threshold": 0.8}])
def test_truncation_has_the_density_and_the_variance_of_scipy(given):
    prior = Truncated(**given)
    prior.fit(torch.empty(0, 2), seeded())
    bound = given.get("threshold")
    reference = stats.norm(scale=0.6) if bound is None else stats.truncnorm(-bound, bound)
    drawn = prior.draw(50_000, seeded())
    assert drawn.shape == (50_000, 2)
    assert abs(float(drawn.var()) - reference.var()) < 0.01
    assert bound is None or float(drawn.abs().max()) <= bound
    z = torch.tensor([[0.1, -0.7], [0.0, 0.79], [0.3, 0.9]])
    expected = torch.from_numpy(reference.logpdf(z.numpy())).sum(1)
    assert torch.allclose(prior.log_prob(z), expected, atol=1e-6)
    assert prior.parameters == 0


def test_a_truncation_of_1_is_the_prior_of_training():
    prior, model = Truncated(scale=1.0), Linear()
    prior.fit(torch.empty(0, 3), seeded())
    assert prior.draw(7, seeded()).equal(model.latents(7, seeded()))


def test_a_curve_is_a_prior_for_each_value():
    assert [prior.settings for prior in curve(scale=[0.5, 1])] == [{"scale": 0.5}, {"scale": 1}]
    assert [prior.settings for prior in curve(threshold=2)] == [{"threshold": 2}]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Truncated(scale=0), "prior.truncated.scale=0: give a number above 0"),
        (lambda: Truncated(threshold=-1), "prior.truncated.threshold=-1: give a number above 0"),
        (lambda: curve(scale=[0.5, -1.0]), "prior.truncated.scale=-1.0: give a number above 0"),
        (lambda: curve(), "give one of them"),
        (lambda: curve(scale=1, threshold=1), "give one of them"),
        (lambda: Mixture(0), "prior.mixture.components=0"),
        (lambda: Mixture([]), "the number of prior.mixture.components=0"),
        (lambda: Flow(lr=0), "prior.flow.lr=0: give a number above 0"),
        (lambda: Aggregated(codes=1), "prior.aggregated.codes=1"),
    ],
)
def test_settings_that_mean_nothing_are_refused_with_a_sentence(make, words):
    with pytest.raises(UserMistake, match=words.replace("[", r"\[").replace(".", r"\.")):
        make()


@pytest.mark.parametrize("prior", [Mixture(2), Flow(), Aggregated(), Truncated(scale=0.5)])
def test_no_prior_draws_before_it_was_fitted(prior):
    with pytest.raises(UserMistake, match="was not fitted"):
        prior.draw(2, seeded())


def test_priors_whose_density_is_at_hand_say_so():
    assert isinstance(Mixture(2), HasDensity)
    assert isinstance(Truncated(scale=0.5), HasDensity)
    assert not isinstance(Flow(), HasDensity)
    assert not isinstance(Aggregated(), HasDensity)
    assert not issubclass(Prior, HasDensity)
