"""Every term against a value that one can work out by hand, or an independent reference."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from genbench.errors import UserMistake
from genbench.losses.adversarial import (
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from genbench.losses.likelihood import (
    SMALLEST_LOG_SCALE,
    SMALLEST_LOG_SIGMA,
    Bernoulli,
    DiscretizedLogistic,
    FeatureGaussian,
    Gaussian,
    bounded,
)
from genbench.losses.penalty import input_gradient, one_centered, zero_centered
from genbench.losses.variational import kl_to_standard_normal, reparameterize


def close(value: Tensor, expected: float, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(
        value.double(), torch.tensor(expected).double(), rtol=tolerance, atol=tolerance
    )


# --- variational ----------------------------------------------------------------------------------


def test_kl_has_the_values_that_one_works_out_by_hand():
    close(kl_to_standard_normal(torch.ones(1, 2), torch.zeros(1, 2))[0], 1.0)
    close(kl_to_standard_normal(torch.zeros(1, 1), torch.ones(1, 1))[0], (math.e - 2) / 2)


def test_kl_equals_torch_distributions():
    mu, logvar = torch.randn(5, 7), torch.randn(5, 7)
    prior = Independent(Normal(torch.zeros(5, 7), 1.0), 1)
    posterior = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    torch.testing.assert_close(kl_to_standard_normal(mu, logvar), kl_divergence(posterior, prior))


def test_reparameterized_draws_have_the_posterior_moments():
    noise = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    z = reparameterize(torch.tensor(0.7), torch.tensor(-1.0), noise)
    close(z.mean(), 0.7, 5e-3)
    close(z.std(), math.exp(-0.5), 5e-3)


# --- likelihoods ----------------------------------------------------------------------------------


def test_gaussian_at_its_mean_costs_half_log_two_pi_per_pixel():
    zeros = torch.zeros(1, 1, 2, 2)
    close(-Gaussian(1.0).log_prob(zeros, zeros)[0], 2 * math.log(2 * math.pi))


def test_gaussian_equals_torch_distributions():
    images, output = torch.rand(3, 1, 4, 4) * 2 - 1, torch.randn(3, 1, 4, 4)
    expected = Normal(output, 0.3).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(Gaussian(0.3).log_prob(images, output), expected)


def test_bernoulli_without_an_opinion_costs_log_two_per_pixel():
    images = torch.tensor([-1.0, 1.0, 1.0, -1.0, 1.0]).view(1, 1, 1, 5)
    close(-Bernoulli(2).log_prob(images, torch.zeros_like(images))[0], 5 * math.log(2))


def test_bernoulli_refuses_grey_images():
    with pytest.raises(UserMistake, match="256"):
        Bernoulli(256)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(
    ("mean", "scale"), [(0.13, 0.05), (-0.99, 0.5), (2.0, 0.01), (0.0, 1e-3), (0.0, 20.0)]
)
def test_discretized_logistic_is_a_distribution_over_the_levels(levels, mean, scale):
    bins = torch.linspace(-1, 1, levels).double().view(levels, 1, 1, 1)
    likelihood = DiscretizedLogistic(levels, scale)
    likelihood.log_scale.data = likelihood.log_scale.data.double()
    mass = likelihood.log_prob(bins, torch.full_like(bins, mean)).exp().sum()
    close(mass, 1.0, 2e-4 if scale < 0.01 else 2e-5)


def test_discretized_logistic_equals_the_naive_form():
    likelihood = DiscretizedLogistic(256, 0.1)
    image, output = torch.full((1, 1, 1, 1), 0.2), torch.zeros(1, 1, 1, 1)
    close(-likelihood.log_prob(image, output)[0], 4.799291133880615, 2e-5)


def test_discretized_logistic_is_finite_with_finite_gradients_at_the_smallest_scale():
    likelihood = DiscretizedLogistic(256, math.exp(-7))
    images = torch.linspace(-1, 1, 52).view(52, 1, 1, 1)
    output = torch.zeros_like(images, requires_grad=True)
    loss = likelihood.log_prob(images, output).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(output.grad).all()
    assert torch.isfinite(likelihood.log_scale.grad)


@pytest.mark.parametrize("bound", [SMALLEST_LOG_SCALE, SMALLEST_LOG_SIGMA])
def test_a_bounded_parameter_is_itself_above_its_bound_and_has_a_gradient_everywhere(bound):
    above = torch.linspace(bound + 2.001, 3, 1001, requires_grad=True)
    held = bounded(above, bound)
    assert torch.equal(held, above)
    assert torch.equal(*torch.autograd.grad(held.sum(), above), torch.ones(1001))

    near = torch.linspace(bound - 4, bound + 3, 1001).double().requires_grad_(True)
    held = bounded(near, bound)
    expected = bound + torch.logaddexp(10 * (near - bound), torch.zeros(())) / 10
    torch.testing.assert_close(
        held, expected, atol=1e-9, rtol=0
    )  # continuous where it changes over
    (slope,) = torch.autograd.grad(held.sum(), near)
    torch.testing.assert_close(
        slope, torch.sigmoid(10 * (near.detach() - bound)), atol=3e-9, rtol=0
    )
    assert (held >= bound).all()
    assert (slope > 0).all()


@pytest.mark.parametrize(
    ("likelihood", "name"),
    [
        (DiscretizedLogistic(256, math.exp(-7.5)), "log_scale"),
        (Gaussian(math.exp(-6.5)), "log_sigma"),
    ],
)
def test_a_scale_below_its_bound_comes_back(likelihood, name):
    images = torch.linspace(-1, 1, 256).view(1, 1, 16, 16)
    output = images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    adam, start = (
        torch.optim.Adam(likelihood.parameters(), lr=0.05),
        getattr(likelihood, name).item(),
    )
    for _ in range(200):
        loss = -likelihood.log_prob(images, output).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert getattr(likelihood, name).item() > start + 2


def test_a_constant_border_costs_nothing_once_the_mean_runs_past_the_range():
    likelihood = DiscretizedLogistic(17, 0.1)
    image, output = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    bordered = F.pad(image, (1, 1, 1, 1), value=-1.0), F.pad(output, (1, 1, 1, 1), value=-5.0)
    torch.testing.assert_close(likelihood.log_prob(*bordered), likelihood.log_prob(image, output))


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).clamp(1e-7, 1 - 1e-7)


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("mean", [-1.1, -0.3, 0.97])
def test_levels_are_drawn_as_often_as_the_discretized_logistic_says(levels, mean):
    likelihood, count = DiscretizedLogistic(levels, 0.2), 40_000
    output = torch.full((count, 1, 1, 1), mean)
    drawn = likelihood.draw(output, uniform(count, 1, 1, 1)).flatten()
    numbers = (drawn.double() + 1) * (levels - 1) / 2
    torch.testing.assert_close(numbers, numbers.round(), rtol=0, atol=1e-4)  # stored levels only
    bins = torch.linspace(-1, 1, levels).view(-1, 1, 1, 1)
    mass = likelihood.log_prob(bins, torch.full_like(bins, mean)).exp().double()
    seen = torch.bincount(numbers.round().long(), minlength=levels) / count
    error = (mass * (1 - mass) / count).sqrt().clamp_min(1 / count)
    assert ((seen - mass).abs() / error).max() < 5


def test_pixels_are_drawn_from_the_gaussian_and_from_the_bernoulli():
    likelihood, noise = Gaussian(0.3, learned=False), uniform(40_000, 1, 1, 1)
    drawn = likelihood.draw(torch.full_like(noise, 0.5), noise)
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.006)
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.02)
    inside = float(((drawn - 0.5).abs() < 0.3).float().mean())
    assert inside == pytest.approx(0.6827, abs=0.01)
    ones = Bernoulli(2).draw(torch.full_like(noise, -1.2), noise)
    assert set(ones.flatten().tolist()) == {-1.0, 1.0}
    expected = 1 / (1 + math.exp(1.2))
    assert float((ones + 1).mean() / 2) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    "likelihood", [DiscretizedLogistic(17), Gaussian(), Gaussian(0.5, learned=False)]
)
def test_a_likelihood_is_a_sum_per_image_whatever_the_batch(likelihood):
    images = torch.linspace(-1, 1, 17)[torch.randint(17, (4, 1, 3, 3))]
    output = torch.randn(4, 1, 3, 3)
    alone = torch.cat(
        [likelihood.log_prob(i[None], o[None]) for i, o in zip(images, output, strict=True)]
    )
    torch.testing.assert_close(likelihood.log_prob(images, output), alone)
    assert likelihood.log_prob(images, output).shape == (4,)


def feature_gaussian(log_sigma: float, pace: float = 10.0) -> FeatureGaussian:
    made = FeatureGaussian(pace)
    nn.init.constant_(made.scaled_log_sigma, log_sigma / pace)
    return made


def test_the_likelihood_of_features_is_a_gaussian_without_its_constant():
    features, means = torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2)
    expected = Independent(Normal(means, math.exp(-1.3)), 3).log_prob(features)
    found = feature_gaussian(-1.3).log_prob(features, means, 99)
    torch.testing.assert_close(found - 12 / 2 * math.log(2 * math.pi), expected)


def test_no_more_features_are_counted_than_an_image_has_values():
    features, means = torch.randn(5, 12), torch.randn(5, 12)
    likelihood = feature_gaussian(0.4)
    whole = likelihood.log_prob(features, means, 12)
    torch.testing.assert_close(likelihood.log_prob(features, means, 3), whole / 4)
    torch.testing.assert_close(likelihood.log_prob(features, means, 24), whole)


def test_the_best_sigma_of_features_is_their_error_and_its_loss_is_half_a_log_of_it_each():
    """Rybkin et al. 2021, eq. 4: so a change of the features' unit changes a constant alone."""
    features, means = torch.randn(50, 8), torch.randn(50, 8)
    for unit in (1.0, 1e-3):
        mse = (unit * features - unit * means).square().mean()
        best = feature_gaussian(0.5 * math.log(mse))
        loss = -best.log_prob(unit * features, unit * means, 8).mean()
        torch.testing.assert_close(loss, 8 / 2 * (1 + mse.log()))
        (slope,) = torch.autograd.grad(loss, best.scaled_log_sigma)
        assert abs(slope) < 1e-3


def test_the_sigma_of_features_follows_their_unit_at_the_pace_of_adam():
    """From 1 to e^-5, an untrained discriminator's, in 600 steps at a rate of 1e-3."""
    likelihood = FeatureGaussian()
    adam = torch.optim.Adam(likelihood.parameters(), lr=1e-3, betas=(0.0, 0.99))
    error = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)) * math.exp(-5)
    for _ in range(600):
        adam.zero_grad()
        (-likelihood.log_prob(error, torch.zeros(64, 32), 32).mean()).backward()
        adam.step()
    assert float(likelihood.log_sigma.detach()) == pytest.approx(-5, abs=0.05)


def test_a_pace_that_is_not_above_0_is_refused():
    with pytest.raises(UserMistake, match="pace=0 is not a scale"):
        FeatureGaussian(0)


def test_importance_weights_of_an_exact_posterior_are_constant():
    """Likelihood, prior, posterior and all constants at once: a linear Gaussian model."""
    a, b, s, x = 1.7, 0.3, 0.6, 1.1
    variance = s * s / (a * a + s * s)
    mu = torch.full((8, 1), a * (x - b) / (a * a + s * s))
    logvar = torch.full((8, 1), math.log(variance))
    noise = torch.randn(8, 1)
    z = reparameterize(mu, logvar, noise)
    image, output = torch.full((8, 1, 1, 1), x), (a * z + b).view(8, 1, 1, 1)
    log_w = Gaussian(s).log_prob(image, output) + (
        Normal(0.0, 1.0).log_prob(z) - Normal(mu, variance**0.5).log_prob(z)
    ).sum(1)
    torch.testing.assert_close(log_w, torch.full((8,), -1.6067275698370342))


# --- adversarial ----------------------------------------------------------------------------------


def unused() -> Tensor:
    raise AssertionError("it has no use for real logits, and must not compute them")


def test_adversarial_losses_have_the_values_that_one_works_out_by_hand():
    zeros, real, fake = torch.zeros(3), torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.0])
    close(NonSaturating().discriminator(zeros, zeros), 2 * math.log(2))
    close(NonSaturating().generator(zeros, unused), math.log(2))
    close(Minimax().generator(zeros, unused), -math.log(2))
    close(Hinge().discriminator(real, fake), 1.0)
    close(Hinge().generator(fake, unused), 1.0)
    close(LeastSquares().discriminator(torch.ones(2), torch.zeros(2)), 0.0)
    close(LeastSquares().generator(torch.zeros(2), unused), 0.5)
    close(Wasserstein().discriminator(real, fake), -2.0)
    close(Relativistic().discriminator(zeros, zeros), math.log(2))
    expected = (
        math.log1p(math.exp(-4)) + math.log(2)
    ) / 2  # -log sigmoid(real - fake), pair by pair
    close(Relativistic().discriminator(real, fake), expected)
    close(Relativistic().generator(real, lambda: fake), expected)


def generator_gradient(loss, logit: float) -> Tensor:
    fake = torch.tensor([logit], requires_grad=True)
    return torch.autograd.grad(loss.generator(fake, lambda: torch.zeros(1)), fake)[0][0]


def test_only_the_minimax_generator_saturates():
    close(generator_gradient(Minimax(), -5.0), -0.006692850962281227)
    close(generator_gradient(NonSaturating(), -5.0), -0.9933071732521057)
    close(generator_gradient(NonSaturating(), -30.0), -1.0)


@pytest.mark.parametrize(
    "loss", [NonSaturating(), Minimax(), Hinge(), LeastSquares(), Wasserstein(), Relativistic()]
)
def test_every_loss_pulls_logits_the_right_way(loss):
    real = torch.tensor([0.1], requires_grad=True)
    fake = torch.tensor([0.1], requires_grad=True)
    d_real, d_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    assert d_real < 0 < d_fake
    assert generator_gradient(loss, 0.1) < 0


# --- penalties ------------------------------------------------------------------------------------


def linear_critic(*weights: float) -> tuple[Tensor, nn.Module]:
    layer = nn.Linear(len(weights), 1, bias=False)
    layer.weight.data = torch.tensor([weights])
    return layer.weight, nn.Sequential(nn.Flatten(), layer, nn.Flatten(0))


def test_penalties_of_a_linear_critic_are_known():
    weight, critic = linear_critic(3.0, 4.0)
    real, fake = torch.randn(6, 1, 1, 2), torch.randn(6, 1, 1, 2)
    penalty = one_centered(critic, real, fake, torch.rand(6, 1, 1, 1))
    close(penalty, 16.0, 1e-5)
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, torch.tensor([[4.8, 6.4]]))
    close(zero_centered(critic, real), 12.5, 1e-5)


def test_the_gradient_norm_runs_over_all_pixels_and_channels():
    _, critic = linear_critic(*[1.0] * 4)
    close(one_centered(critic, *torch.randn(2, 4, 1, 2, 2), torch.rand(4, 1, 1, 1)), 1.0, 1e-5)


def test_a_dead_critic_has_finite_gradients():
    weight, critic = linear_critic(0.0, 0.0)
    real, fake = torch.randn(4, 1, 1, 2), torch.randn(4, 1, 1, 2)
    penalty = one_centered(critic, real, fake, torch.rand(4, 1, 1, 1)) + zero_centered(critic, real)
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert torch.isfinite(gradient).all()


def test_penalties_stay_in_float32_under_autocast():
    _, critic = linear_critic(3.0, 4.0)
    images = torch.randn(6, 1, 1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert input_gradient(critic, images).dtype == torch.float32
        close(zero_centered(critic, images), 12.5, 1e-5)
