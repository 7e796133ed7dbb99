"""The ELBO's surgery and active units against closed forms, of a linear-Gaussian model."""

import math

import pytest
import torch

from genbench.models.surgery import (
    active_units,
    in_words,
    midpoints,
    nearest_others,
    rate_by_unit,
    surgery,
)

SCALE = torch.tensor([1.5, 0.4], dtype=torch.float64)  # norms of the columns of W
SIGMA = 0.8


def posteriors(n, widen=1.0, shift=0.0, seed=0):
    """Posteriors of n images of x = W z + sigma e, with a prior N(0, I) and orthogonal columns in W.

    z | x ~ N(M^-1 W^T x, sigma^2 M^-1) with M = W^T W + sigma^2: W^T x / |w| is sufficient. `widen`
    multiplies the codes and `shift` moves them, which makes the prior a wrong one.
    """
    generator = torch.Generator().manual_seed(seed)
    z, e = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
    precision = SCALE.square() + SIGMA**2
    mu = SCALE * (SCALE * z + SIGMA * e) / precision
    logvar = (SIGMA**2 / precision).log().expand_as(mu)
    return widen * mu + shift, logvar + 2 * math.log(widen)


def noise(mu, draws=1, seed=1):
    return torch.randn(draws, *mu.shape, generator=torch.Generator().manual_seed(seed))


def information():
    """I(x; z) = 1/2 sum log(1 + |w|^2 / sigma^2)."""
    return 0.5 * float((1 + SCALE.square() / SIGMA**2).log().sum())


def test_the_rate_of_an_exact_posterior_is_its_information_and_the_aggregate_is_the_prior():
    mu, logvar = posteriors(4000)
    found = surgery(mu, logvar, noise(mu))
    assert float(found.rate.mean()) == pytest.approx(information(), abs=0.03)
    assert float(found.information.mean()) == pytest.approx(information(), abs=0.04)
    assert float(found.marginal.mean()) == pytest.approx(0, abs=0.04)


def test_codes_that_miss_the_prior_pay_for_it_in_the_marginal_term_alone():
    widen, shift = 1.7, 0.9
    mu, logvar = posteriors(4000, widen, shift)
    found = surgery(mu, logvar, noise(mu, 4))
    each = 0.5 * (shift**2 + widen**2 - 1 - 2 * math.log(widen))  # KL(N(shift, widen^2) || N(0, 1))
    assert float(found.information.mean()) == pytest.approx(information(), abs=0.04)
    assert float(found.marginal.mean()) == pytest.approx(2 * each, abs=0.08)


def test_the_two_terms_are_the_rate_and_the_rate_is_that_of_its_units():
    mu, logvar = posteriors(700, 1.2, 0.3)
    found = surgery(mu, logvar, noise(mu))
    torch.testing.assert_close(found.information + found.marginal, found.rate)
    assert float(rate_by_unit(mu, logvar).sum()) == pytest.approx(float(found.rate.mean()))


def test_the_aggregate_is_the_mixture_of_all_posteriors_whatever_the_block():
    mu, logvar = posteriors(1100)  # of more than two blocks of rows
    z = mu + noise(mu)[0] * (0.5 * logvar).exp()
    joint = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, None]).sum(-1)
    expected = joint.diagonal() - (joint.logsumexp(1) - math.log(1100))
    torch.testing.assert_close(surgery(mu, logvar, noise(mu)).information, expected)


def test_no_code_tells_more_than_log_n():
    mu, logvar = posteriors(300)
    found = surgery(100 * mu, logvar - 20, noise(mu)).information
    torch.testing.assert_close(found, torch.full_like(found, math.log(300)))
    nothing = surgery(0 * mu, logvar, noise(mu)).information
    torch.testing.assert_close(nothing, torch.zeros_like(nothing), atol=1e-9, rtol=0)


def test_a_unit_is_active_if_its_mean_varies_by_more_than_a_hundredth():
    mu = torch.tensor([-1.0, 1.0]).repeat(500)[:, None] * torch.tensor([0.0, 0.09, 0.11, 3.0])
    assert active_units(mu + 5) == 2  # variances 0, 0.0081, 0.0121 and 9


def test_the_nearest_code_is_another_one():
    codes = torch.tensor([[0.0], [1.0], [5.0], [7.0], [5.0]])
    assert nearest_others(codes).tolist() == [1, 0, 4, 2, 2]
    assert midpoints(codes).flatten().tolist() == [0.5, 0.5, 5.0, 6.0, 5.0]
    many = torch.randn(1200, 3, generator=torch.Generator().manual_seed(0))
    apart = torch.cdist(many, many).fill_diagonal_(math.inf)
    assert nearest_others(many).tolist() == apart.argmin(1).tolist()


class Encoder:
    def __init__(self, factor):
        self.factor = factor

    def posterior(self, images):
        return self.factor * images.flatten(1)[:, :3], torch.full((len(images), 3), -6.0)


def test_the_words_tell_a_dead_encoder_from_one_that_is_not_heeded():
    images = torch.randn(100, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert in_words(Encoder(0.0), images, 32).startswith("0 of 3 latents are active, with 0 of at")
    assert in_words(Encoder(9.0), images, 32).startswith("3 of 3 latents are active, with 4.6 of")
    assert in_words(Encoder(math.nan), images, 32) == ""


def test_posteriors_far_narrower_than_they_are_apart_tell_the_image():
    generator = torch.Generator().manual_seed(0)
    mu = 1e4 * torch.randn(300, 8, generator=generator)
    mu[0] = 1e7  # and one image of which the encoder is lost
    for narrow in (-20.0, -40.0, -80.0):
        logvar = torch.full_like(mu, narrow)
        logvar[0] = 20.0
        noise = torch.randn(1, 300, 8, generator=generator)
        information = surgery(mu, logvar, noise).information
        assert torch.allclose(information, torch.full_like(information, math.log(300)))
