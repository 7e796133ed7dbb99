"""Intervals, corrections and verdicts, against SciPy, published numbers and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from genbench.comparison.significance import Samples, differences, holm, leader, welch

GAN = [17.5, 17.9, 16.1, 21.8, 31.7]  # FD of five seeds (docs/metrics.md tells why seeds matter)
VAE = [10.1, 12.0, 11.5, 9.6, 11.5]


@pytest.mark.parametrize("a, b", [(VAE, GAN), (VAE[:2], GAN), ([1e-9, 2e-9, 4e-9], [1.0, 1.1])])
def test_welch_is_that_of_scipy(a, b):
    expected = stats.ttest_ind(a, b, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    found = welch(a, b)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-10)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-10)
    assert found.delta == pytest.approx(np.mean(a) - np.mean(b))


def test_the_half_width_is_the_t_multiplier_of_the_seeds():
    for n, multiplier in ((3, 2.48), (5, 1.24), (10, 0.72)):  # t(.975, n - 1) / sqrt(n)
        values = [math.sqrt((n - 1) / 2), -math.sqrt((n - 1) / 2)] + [0.0] * (n - 2)  # sd 1
        found = welch(values, [0.0] * n)
        assert found.high == pytest.approx(multiplier, abs=0.005)


def test_values_that_never_vary_differ_surely_or_not_at_all():
    assert welch([1.0] * 5, [0.0] * 5).p == 0
    same = welch([0.1] * 5, [0.1] * 5)
    assert (same.delta, same.low, same.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="two values"):
        welch([1.0], [1.0, 2.0])


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_five_seeds_err_in_one_case_of_twenty_and_find_two_sd_in_three_of_four():
    random = np.random.default_rng(0)
    draws = random.standard_normal((2000, 2, 5))
    null = np.mean([welch(list(a), list(b)).p < 0.05 for a, b in draws])
    power = np.mean([welch(list(a), list(b + 2)).p < 0.05 for a, b in draws])
    assert 0.035 < null < 0.06
    assert 0.74 < power < 0.80


def test_a_best_of_three_alike_is_named_in_fewer_than_one_case_of_twenty():
    random = np.random.default_rng(1)
    draws = random.standard_normal((1000, 3, 5)).tolist()
    assert np.mean([leader(one, True)[1] < 0.05 for one in draws]) < 0.05


def test_a_difference_is_corrected_for_the_scores_beside_it():
    random = np.random.default_rng(3)
    equal = {f"m{i}": Samples(*random.standard_normal((2, 5)).tolist(), True) for i in range(9)}
    fd = Samples([8.0, 9.0, 10.0, 11.0, 12.0], [10.5, 11.5, 12.5, 13.5, 14.5], False)
    (alone,) = differences("a", "b", {"fd": fd})
    among = differences("a", "b", {"fd": fd} | equal)[0]
    assert (alone.verdict, alone.holm_p) == ("better", alone.p)
    assert (among.verdict, among.holm_p) == ("undecided", pytest.approx(10 * alone.p))
    assert (among.low, among.high) == (alone.low, alone.high)


def test_a_verdict_knows_which_way_is_better():
    by_way = {way: Samples(VAE, GAN, way) for way in (True, False, None)}
    verdicts = {w: differences("vae", "gan", {"s": s})[0].verdict for w, s in by_way.items()}
    assert verdicts == {True: "worse", False: "better", None: "lower"}


def test_below_five_seeds_there_is_no_verdict_and_below_three_no_interval():
    four, two, none = (
        differences("vae", "gan", {"fd": Samples(VAE[:n], GAN, False)}) for n in (4, 2, 0)
    )
    assert (four[0].verdict, four[0].holm_p, four[0].n_a, four[0].n_b) == (
        "too few seeds", None, 4, 5,
    )  # fmt: skip
    assert four[0].low is not None
    assert (two[0].verdict, two[0].low, two[0].p) == ("too few seeds", None, None)
    assert none == []


def test_the_leader_is_as_sure_as_its_nearest_rival_lets_it_be():
    far, near = [v + 100 for v in VAE], [v + 0.5 for v in VAE]
    assert leader([far, VAE, near], False) == (1, welch(VAE, near).p)
    assert leader([far, VAE, near], True)[0] == 0
    assert leader([VAE], False) is None
    assert leader([VAE, GAN[:4]], False) is None
