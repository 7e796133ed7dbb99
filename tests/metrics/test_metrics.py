import math
import warnings

import numpy as np
import pytest
import torch

from genbench.metrics.class_balance import ClassBalance, total_variation
from genbench.metrics.contract import Features
from genbench.metrics.copy_rate import CopyRate
from genbench.metrics.features import subset
from genbench.metrics.frechet import (
    FrechetDistance,
    Moments,
    distance,
    factor,
    moments,
    resampled_distances,
)
from genbench.metrics.inception_score import InceptionScore, inception_score
from genbench.metrics.kernel import KernelDistance, kernel_distance, standard_error
from genbench.metrics.likelihood import bits_per_dimension
from genbench.metrics.prdc import NeighbourScores, prdc


def draw(n, d, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scale + shift


def fit(mean, *rows):
    return Moments(torch.tensor(mean, dtype=torch.float64), torch.tensor(rows, dtype=torch.float64))


def frechet(a, b):
    return distance(moments(a), moments(b))


# --- Frechet distance -----------------------------------------------------------------------------


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


def test_constants_are_as_far_apart_as_they_are():
    zeros, ones = torch.zeros(10, 4), torch.ones(12, 4)
    assert frechet(zeros, zeros) == pytest.approx(0, abs=1e-9)
    assert frechet(zeros, ones) == pytest.approx(4, rel=1e-9)


def test_a_collapsed_model_loses_the_whole_spread():
    x, point = draw(400, 5), torch.full((50, 5), 2.0)
    fitted = moments(x)
    expected = float((fitted.mean - 2).square().sum() + fitted.covariance.trace())
    assert frechet(x, point) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 40, 64), (40, 500, 64), (2000, 1800, 16)])
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


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("measure", [frechet, kernel_distance, prdc, total_variation])
def test_what_is_not_finite_is_refused(measure, wrong):
    x, y = draw(20, 3), draw(20, 3)
    y[7, 1] = wrong
    with pytest.raises(ValueError, match="NaN or infinity"):
        measure(x, y)
    with pytest.raises(ValueError, match="NaN or infinity"):
        measure(y, x)


@pytest.mark.parametrize("measure", [frechet, kernel_distance, prdc])
def test_fewer_than_two_rows_are_refused(measure):
    with pytest.raises(ValueError, match="at least two"):
        measure(draw(20, 3), draw(1, 3))


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


# --- kernel distance ------------------------------------------------------------------------------


def test_the_kernel_distance_of_two_pairs_is_that_by_hand():
    # k(0, 1) = 1, k(2, 3) = 343, between them 1, 1, 27, 64
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    assert kernel_distance(x, y) == pytest.approx(297.5, rel=1e-12)


def test_the_kernel_distance_of_equal_distributions_is_nothing_on_average():
    found = [
        kernel_distance(draw(40, 4, seed=2 * i), draw(60, 4, seed=2 * i + 1)) for i in range(200)
    ]
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0 < max(found)


def test_the_kernel_distance_is_the_same_over_many_blocks(monkeypatch):
    x, y = draw(50, 4), draw(70, 4, seed=1, shift=0.3)
    whole = kernel_distance(x, y)
    monkeypatch.setattr("genbench.metrics.kernel.BLOCK", 16)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)


def test_the_standard_error_is_the_spread_over_repeated_draws():
    found, errors = [], []
    for i in range(40):
        x, y = draw(400, 4, seed=2 * i), draw(400, 4, seed=2 * i + 1, shift=0.7)
        found.append(kernel_distance(x, y))
        errors.append(standard_error(x, y, 10, seed=0))
    assert np.mean(errors) == pytest.approx(np.std(found, ddof=1), rel=0.35)


def test_too_few_rows_for_two_blocks_have_no_standard_error():
    assert standard_error(draw(3, 2), draw(3, 2), 10, seed=0) is None


# --- inception score ------------------------------------------------------------------------------


def one_hot(classes, gap, repeats=20):
    return torch.eye(10)[list(classes)].repeat(repeats, 1) * gap


def test_a_perfect_generator_scores_its_classes_at_any_gap_between_logits():
    for gap in (2000.0, 1e5):
        assert inception_score(one_hot(range(10), gap)) == pytest.approx(10, rel=1e-9)
        assert inception_score(one_hot([3], gap)) == pytest.approx(1, rel=1e-9)
        assert inception_score(one_hot(range(9), gap)) == pytest.approx(9, rel=1e-9)


def test_two_mirrored_images_score_what_paper_and_pencil_say():
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    assert inception_score(p.log()) == pytest.approx(1.4449348111684153, rel=1e-12)


def test_the_inception_score_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        inception_score(torch.full((4, 3), math.nan))


# --- references -----------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [16, 64])
def test_three_scores_agree_with_torch_fidelity_on_the_same_features(d):
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    x, y = draw(600, d), draw(600, d, seed=1, scale=1.1, shift=0.1)
    statistics = [fid.fid_features_to_statistics(part) for part in (x, y)]
    theirs = fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert frechet(x, y) == pytest.approx(theirs, rel=1e-6)
    theirs = kid.kernel_mmd(
        x.numpy(),
        y.numpy(),
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
    )
    assert kernel_distance(x, y) == pytest.approx(theirs, rel=1e-6)
    theirs = isc.isc_features_to_metric(x, splits=1, shuffle=False)["inception_score_mean"]
    assert inception_score(x) == pytest.approx(theirs, rel=1e-6)


class Identity(torch.nn.Module):
    num_features = 16

    def forward(self, x):
        return x


def test_three_scores_agree_with_torchmetrics_on_the_same_features():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.inception import InceptionScore as TheirScore
        from torchmetrics.image.kid import poly_mmd

        x, y = draw(500, 16), draw(500, 16, seed=1, scale=1.1, shift=0.1)
        with torch.random.fork_rng():
            fid = FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64)
            fid.update(x, real=True)
            fid.update(y, real=False)
            score = TheirScore(feature=Identity(), splits=1).set_dtype(torch.float64)
            score.features.append(x)
            theirs = float(fid.compute()), float(poly_mmd(x, y)), float(score.compute()[0])
    ours = frechet(x, y), kernel_distance(x, y), inception_score(x)
    assert ours == pytest.approx(theirs, rel=1e-6)


# --- neighbours -----------------------------------------------------------------------------------


def test_a_set_among_itself_is_precise_and_complete():
    x = draw(200, 5)
    found = prdc(x, x)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_neighbours_agree_with_the_definitions_written_out():
    x, y, k = draw(60, 3), draw(80, 3, seed=1, scale=0.6), 5
    between = torch.cdist(x, y)
    real = torch.cdist(x, x).sort(1).values[:, k]  # column 0 is the row itself
    fake = torch.cdist(y, y).sort(1).values[:, k]
    inside = between <= real[:, None]
    found = prdc(x, y, k)
    assert found.precision == pytest.approx(float(inside.any(0).double().mean()))
    assert found.recall == pytest.approx(float((between <= fake).any(1).double().mean()))
    assert found.density == pytest.approx(float(inside.double().sum() / (k * len(y))))
    assert found.coverage == pytest.approx(float(inside.any(1).double().mean()))


def test_neighbours_are_the_same_block_by_block(monkeypatch):
    x, y = draw(60, 3), draw(80, 3, seed=1, scale=0.6)
    whole = prdc(x, y)
    monkeypatch.setattr("genbench.metrics.prdc.BLOCK", 500)
    assert prdc(x, y) == whole


def test_an_offset_of_a_thousand_changes_no_neighbour():
    x, y = draw(300, 6), draw(300, 6, seed=1, scale=0.8)
    assert prdc(x + 1000, y + 1000) == prdc(x, y)


def test_a_model_that_repeats_one_image_is_precise_and_has_no_recall():
    x = draw(300, 6)
    found = prdc(x, x[:1].repeat(300, 1))
    assert found.precision == 1
    assert found.recall == 1 / 300
    assert found.coverage < 0.05


def test_equal_distributions_have_the_ceilings_that_are_known():
    n, k = 400, 5
    found = [prdc(draw(n, 4, seed=2 * i), draw(n, 4, seed=2 * i + 1), k) for i in range(12)]
    ceiling = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert ceiling == pytest.approx(0.969, abs=1e-3)
    assert np.mean([part.coverage for part in found]) == pytest.approx(ceiling, abs=0.01)
    assert np.mean([part.density for part in found]) == pytest.approx(1, abs=0.05)


def test_neighbours_refuse_fewer_rows_than_they_need():
    with pytest.raises(ValueError, match="5 rows have no 5 neighbours"):
        prdc(draw(5, 2), draw(30, 2))


# --- class balance --------------------------------------------------------------------------------


def test_class_balance_is_the_mass_that_would_have_to_move():
    balanced, missing = one_hot(range(10), 5.0), one_hot(range(9), 5.0)
    assert total_variation(balanced, balanced) == 0
    assert total_variation(missing, balanced) == pytest.approx(0.1)
    assert total_variation(one_hot([0], 5.0), one_hot([1], 5.0)) == 1


# --- likelihood -----------------------------------------------------------------------------------


def test_a_uniform_image_of_256_levels_takes_eight_bits_per_dimension():
    assert bits_per_dimension(3 * 64 * math.log(256), 3 * 64) == pytest.approx(8.0, rel=1e-12)


# --- the metrics ----------------------------------------------------------------------------------

METRICS = [
    FrechetDistance,
    KernelDistance,
    InceptionScore,
    NeighbourScores,
    ClassBalance,
    CopyRate,
]


def feed(metric, **sets):
    return metric({role: Features(rows, rows) for role, rows in sets.items()})


@pytest.mark.parametrize("make", METRICS)
def test_every_metric_gives_its_quantities_and_remembers_nothing(make):
    sets = {"real": draw(60, 4), "heldout": draw(40, 4, seed=1), "fake": draw(50, 4, seed=2)}
    metric = make()
    first = feed(metric, **sets)
    assert set(first) == {quantity.name for quantity in make.quantities}
    feed(metric, **(sets | {"fake": draw(30, 4, seed=3)}))
    assert feed(metric, **sets) == first


@pytest.mark.parametrize("make", METRICS)
def test_no_metric_changes_the_features_that_all_share(make):
    sets = {"real": draw(60, 4), "heldout": draw(40, 4, seed=1), "fake": draw(50, 4, seed=2)}
    before = {role: rows.clone() for role, rows in sets.items()}
    feed(make(), **sets)
    assert all(torch.equal(sets[role], rows) for role, rows in before.items())


@pytest.mark.parametrize("make", METRICS)
def test_no_metric_draws_from_the_global_generator(make):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sets = {"real": draw(60, 4), "heldout": draw(40, 4, seed=1), "fake": draw(50, 4, seed=2)}
    feed(make(), **sets)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_floor_needs_no_generated_image():
    found = feed(FrechetDistance(), real=draw(50, 3), heldout=draw(50, 3, seed=1))
    assert set(found) == {"fd_floor"}


def test_a_subset_depends_on_its_seed_and_keeps_small_sets_whole():
    rows = draw(30, 2)
    assert subset(rows, 30, seed=0) is rows
    assert torch.equal(subset(rows, 10, seed=0), subset(rows, 10, seed=0))
    assert not torch.equal(subset(rows, 10, seed=0), subset(rows, 10, seed=1))
