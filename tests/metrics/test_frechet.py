"""The Fréchet distance against closed forms."""

import math

import numpy as np
import pytest
import torch

from fixtures.features import draw, feed, frechet
from genbench.metrics.contract import Features
from genbench.metrics.frechet import (
    FrechetDistance,
    Moments,
    bias_constant,
    distance,
    factor,
    jackknife,
    moments,
    resampled_distances,
)


def fit(mean, *rows):
    return Moments(torch.tensor(mean, dtype=torch.float64), torch.tensor(rows, dtype=torch.float64))


def test_commuting_covariances_have_the_distance_of_their_roots():
    # |m|^2 = 25, (1 - 3)^2 + (2 - 5)^2 = 13
    a, b = fit([0, 0], [1, 0], [0, 4]), fit([3, 4], [9, 0], [0, 25])
    assert distance(a, b) == pytest.approx(38.0, rel=1e-12)


def test_a_rotated_covariance_has_the_distance_of_the_closed_form_in_two_dimensions():
    c, s = math.cos(0.7), math.sin(0.7)
    rotation = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    a = fit([0, 0], [1, 0], [0, 9])
    b = Moments(a.mean, rotation @ a.covariance @ rotation.T)
    # Tr (S T)^(1/2) = (Tr S T + 2 (det S T)^(1/2))^(1/2)
    trace = math.sqrt(float((a.covariance @ b.covariance).trace()) + 2 * 9)
    assert distance(a, b) == pytest.approx(20 - 2 * trace, rel=1e-12)
    assert distance(a, b) == pytest.approx(2.8606944629827282, rel=1e-12)


def test_a_translation_costs_its_squared_length():
    x, t = draw(500, 6), draw(1, 6, seed=1)
    assert frechet(x, x + t) == pytest.approx(float(t.square().sum()), rel=1e-9)


def test_a_scale_costs_what_it_takes_from_mean_and_spread():
    x, c = draw(500, 6, shift=2.0), 0.7
    fitted = moments(x)
    spread = float(fitted.mean.square().sum() + fitted.covariance.trace())
    assert frechet(x, c * x) == pytest.approx((1 - c) ** 2 * spread, rel=1e-9)


def test_the_distance_is_symmetric_and_that_to_itself_is_nothing():
    x, y = draw(300, 8), draw(200, 8, seed=1, scale=1.3)
    assert frechet(x, y) == pytest.approx(frechet(y, x), rel=1e-9)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_constant_features_have_the_distance_of_their_means():
    zeros, ones = torch.zeros(10, 4), torch.ones(12, 4)
    assert frechet(zeros, zeros) == pytest.approx(0, abs=1e-9)
    assert frechet(zeros, ones) == pytest.approx(4, rel=1e-9)


def test_a_collapsed_model_loses_the_whole_spread():
    x, point = draw(400, 5), torch.full((50, 5), 2.0)
    fitted = moments(x)
    expected = float((fitted.mean - 2).square().sum() + fitted.covariance.trace())
    assert frechet(x, point) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 40, 64), (40, 500, 64), (600, 500, 16)])
def test_the_distance_is_that_of_the_nuclear_norm_also_with_fewer_rows_than_columns(n, m, d):
    x, y = draw(n, d), draw(m, d, seed=1, scale=1.2)
    centred = [(part - part.mean(0)) / math.sqrt(len(part) - 1) for part in (x, y)]
    cross = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    spread = sum(part.square().sum() for part in centred)
    expected = float((x.mean(0) - y.mean(0)).square().sum() + spread - 2 * cross)
    assert frechet(x, y) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n", [40, 9])
def test_a_covariance_has_a_factor_whatever_its_rank(n):
    covariance = moments(draw(n, 12)).covariance
    root = factor(covariance)
    assert torch.allclose(root @ root.T, covariance, atol=1e-12)
    assert torch.equal(root, root.tril()) == (n > 12)  # Cholesky's, or that of eigenvectors


def test_an_offset_of_a_thousand_moves_no_digit_that_counts():
    x, y = draw(300, 8), draw(300, 8, seed=1, scale=1.1)
    assert frechet(x + 1000, y + 1000) == pytest.approx(frechet(x, y), rel=1e-7)


def test_counts_stand_for_repeated_rows():
    x = draw(50, 4)
    counts = torch.arange(50) % 3
    repeated = moments(x.repeat_interleave(counts, dim=0))
    for a, b in zip(moments(x, counts), repeated, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_moments_are_those_of_numpy_over_many_blocks():
    x = draw(9_000, 3, shift=5.0)
    fitted = moments(x)
    np.testing.assert_allclose(fitted.covariance, np.cov(x.numpy(), rowvar=False), atol=1e-12)
    np.testing.assert_allclose(fitted.mean, x.numpy().mean(0), rtol=1e-12)


def test_the_bias_corrected_distance_is_nearer_to_the_truth():
    truth, plain, corrected = 16 * (1.2 - 1) ** 2, [], []
    for seed in range(20):
        x, y = draw(300, 16, seed=2 * seed), draw(300, 16, seed=2 * seed + 1, scale=1.2)
        metric = feed(FrechetDistance(bootstrap=30, seed=seed), real=x, heldout=x, fake=y)
        plain.append(metric["fd"].value - truth)
        corrected.append(metric["fd_bc"].value - truth)
    assert abs(np.mean(corrected)) < 0.3 * np.mean(plain)
    assert np.square(corrected).mean() < np.square(plain).mean()


def test_resampling_depends_on_its_seed_alone():
    x, y = draw(50, 3), draw(60, 3, seed=1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = resampled_distances(x, y, 3, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert resampled_distances(x, y, 3, seed=5) == first
    assert resampled_distances(x, y, 3, seed=6) != first


def test_the_distance_of_real_images_needs_no_generated_one():
    found = feed(FrechetDistance(), real=draw(50, 3), heldout=draw(50, 3, seed=1))
    assert set(found) == {"fd_real"}


def floor_of(real, heldout, num_samples, **settings):
    sets = {"real": Features(real, real), "heldout": Features(heldout, heldout)}
    return FrechetDistance(**settings).floors(sets, num_samples)["fd_floor"]


@pytest.mark.parametrize(("heldout", "num_samples"), [(360, 2000), (1000, 200), (300, 250)])
def test_the_floor_is_the_distance_of_so_many_new_images(heldout, num_samples):
    """From fewer held-out images, from many more, and from hardly more."""
    expected, found, covered = [], [], 0
    for seed in range(20):
        real = draw(1000, 16, seed=3 * seed)
        new = draw(num_samples, 16, seed=3 * seed + 1)
        expected.append(frechet(real, new))
        floor = floor_of(real, draw(heldout, 16, seed=3 * seed + 2), num_samples)
        found.append(floor.value)
        covered += floor.low < floor.value < floor.high
    assert covered == 20
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.1)


def test_the_bias_constant_is_that_of_the_closed_form_and_of_the_mean_over_draws():
    """For a Gaussian Var(y_i y_j) = l_i l_j, and 2 l_i^2 for i = j."""
    scales = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    variances = scales.square()
    pairs = variances[:, None] * variances / (variances[:, None] + variances)
    expected = float(variances.sum() + (pairs.sum() + pairs.diag().sum()) / 2)
    rows = draw(100_000, 6) * scales
    assert bias_constant(rows) == pytest.approx(expected, rel=0.02)
    constant = torch.cat([rows, torch.full((100_000, 2), 3.0)], 1)  # features that never fire
    assert bias_constant(constant) == pytest.approx(bias_constant(rows), rel=1e-9)
    fitted = Moments(torch.zeros(6, dtype=torch.float64), variances.diag())
    drawn = [distance(fitted, moments(draw(400, 6, seed=i) * scales)) for i in range(200)]
    assert 400 * np.mean(drawn) == pytest.approx(expected, rel=0.05)


def test_the_floor_is_taken_at_the_number_of_the_score_not_of_held_out_images():
    real, heldout = draw(1000, 16), draw(200, 16, seed=1)
    floors = [floor_of(real, heldout, n, bootstrap=0) for n in (100, 200, 400, 2000)]
    values = [floor.value for floor in floors]
    assert values == sorted(values, reverse=True)
    assert values[1] == pytest.approx(frechet(real, heldout))
    assert {(floor.low, floor.interval) for floor in floors} == {(None, "")}


def test_too_few_held_out_images_have_no_floor():
    few = floor_of(draw(500, 16), draw(79, 16), 400)
    assert few.status == "too few images: 79 held-out ones are below 5 x 16 features"
    assert few.value is None
    assert floor_of(draw(500, 16), draw(80, 16), 400).value is not None
    assert floor_of(draw(500, 16), draw(79, 16), 79).value is not None  # not extrapolated


def test_the_standard_error_of_a_mean_by_leaving_out_is_that_of_the_textbook():
    rows = draw(40, 1)
    found = jackknife(lambda some: float(some.mean()), rows, 40, seed=0)
    assert found == pytest.approx(float(rows.std()) / math.sqrt(40), rel=1e-9)
