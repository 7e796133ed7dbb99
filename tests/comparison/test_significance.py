"""Intervals, corrections and verdicts, against SciPy, published numbers and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from genbench.comparison.significance import (
    Pair,
    Samples,
    differences,
    holm,
    leader,
    rank_p,
    welch,
)

GAN = [17.5, 17.9, 16.1, 21.8, 31.7]  # FD of five seeds (docs/metrics.md tells why seeds matter)
VAE = [10.1, 12.0, 11.5, 9.6, 11.5]


def one_pair(scores, tested=True):
    return differences([Pair(name, "vae", "gan", one, tested) for name, one in scores.items()])


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
    assert np.mean([leader(one, True).p < 0.05 for one in draws]) < 0.05


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("rows", [2, 5, 9])
def test_of_tables_without_any_difference_one_in_twenty_has_a_verdict(rows, correlation):
    """Every row against the first one in eight scores; Holm over all of them, as in `standings`."""
    random, tables, scores = np.random.default_rng(rows), 2000, 8
    shared = random.standard_normal((tables, rows, 1, 5))
    own = random.standard_normal((tables, rows, scores, 5))
    values = correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
    found = stats.ttest_ind(values[:, 1:], values[:, :1], axis=-1, equal_var=False).pvalue

    def share(families):
        return np.mean([any(min(holm(p)) < 0.05 for p in family) for family in families])

    error = 3 * (0.05 * 0.95 / tables) ** 0.5
    assert share(found.reshape(tables, 1, -1).tolist()) <= 0.05 + error
    if rows > 2:  # a family per row errs more often
        assert share(found.tolist()) > 0.05 + error


def test_a_difference_is_corrected_for_the_scores_beside_it():
    random = np.random.default_rng(3)
    equal = {f"m{i}": Samples(*random.standard_normal((2, 5)).tolist(), True) for i in range(9)}
    fd = Samples([8.0, 9.0, 10.0, 11.0, 12.0], [10.5, 11.5, 12.5, 13.5, 14.5], False)
    (alone,) = one_pair({"fd": fd})
    among = one_pair({"fd": fd} | equal)[0]
    assert (alone.verdict, alone.holm_p) == ("better", alone.p)
    assert (among.verdict, among.holm_p) == ("undecided", pytest.approx(10 * alone.p))
    assert (among.low, among.high) == (alone.low, alone.high)


def test_a_verdict_knows_which_way_is_better():
    by_way = {way: Samples(VAE, GAN, way) for way in (True, False, None)}
    verdicts = {w: one_pair({"s": s})[0].verdict for w, s in by_way.items()}
    assert verdicts == {True: "worse", False: "better", None: "not tested"}


def test_what_is_not_tested_has_an_interval_and_costs_the_others_nothing():
    fd = Pair("fd", "vae", "gan", Samples(VAE, GAN, False))
    (alone,) = differences([fd])
    for beside in (
        Pair("x", "vae", "gan", Samples(VAE, GAN, False), tested=False),
        Pair("x", "vae", "gan", Samples(VAE, GAN, None)),
        Pair("x", "vae", "gan", Samples(VAE[:4], GAN, False)),
    ):
        first, other = differences([fd, beside])
        assert first == alone
        assert (other.holm_p, other.low is None) == (None, False)


def test_below_five_seeds_there_is_no_verdict_and_below_three_no_interval():
    four, two = (one_pair({"fd": Samples(VAE[:n], GAN, False)}) for n in (4, 2))
    assert (four[0].verdict, four[0].holm_p, four[0].n_a, four[0].n_b) == (
        "too few seeds", None, 4, 5,
    )  # fmt: skip
    assert four[0].low is not None
    assert (two[0].verdict, two[0].low, two[0].p) == ("too few seeds", None, None)
    assert differences([]) == []


def test_the_leader_is_as_sure_as_its_nearest_rival_lets_it_be():
    far, near = [v + 100 for v in VAE], [v + 0.5 for v in VAE]
    p = welch(VAE, near).p
    assert leader([far, VAE, near], False) == (1, p, p)
    assert leader([far, VAE, near], True).place == 0
    assert leader([VAE], False) is None
    assert leader([VAE, GAN[:4]], False) is None


# --- lost runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, m", [(5, 5), (5, 9), (12, 7), (1, 3)])
def test_the_rank_test_is_that_of_scipy_with_lost_runs_below_all_values(n, m):
    random = np.random.default_rng(n)
    winner, other = random.standard_normal(n) + 1, random.standard_normal(m)
    for lost in (0, 1, 3):
        lowest = [-100.0 - place for place in range(lost)]
        expected = stats.mannwhitneyu(
            [*winner, *lowest], other, alternative="greater", method="exact"
        )
        found = rank_p(winner.tolist(), other.tolist(), lost)
        assert found == pytest.approx(min(1, 2 * expected.pvalue), rel=1e-12)


def test_ties_and_lost_runs_of_both_sides_count_against_the_winner():
    assert rank_p([1.0] * 5, [1.0] * 5) == 1
    assert rank_p([2.0] * 5, [1.0] * 5, 2, 2) == rank_p(
        [2.0] * 5 + [-2.0] * 2, [1.0] * 5 + [-1.0] * 2
    )
    assert rank_p([2.0] * 5, [], 0, 5) == rank_p([2.0] * 5, [1.0] * 5) == pytest.approx(2 / 252)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_survivors_are_not_better(higher_is_better):
    sign = 1 if higher_is_better else -1
    few = [sign * (5.0 + 0.1 * place) for place in range(5)]
    many = [sign * (1.0 + 0.1 * place) for place in range(20)]
    for lost, verdict in ((0, "better"), (15, "better in finished runs")):
        (one,) = one_pair({"s": Samples(few, many, higher_is_better, lost_a=lost)})
        assert one.verdict == verdict
        (turned,) = one_pair({"s": Samples(many, few, higher_is_better, lost_b=lost)})
        assert turned.verdict == verdict.replace("better", "worse")
        assert turned.holm_p == pytest.approx(one.holm_p)
        found = leader([few, many], higher_is_better, [lost, 0])
        assert (found.place, found.p < 0.05, found.p_finished < 0.05) == (0, lost == 0, True)


def test_lost_runs_of_the_worse_side_do_not_save_it_and_one_of_many_costs_the_winner_nothing():
    scores = [5.0 + 0.1 * place for place in range(10)]
    worse = [value - 2 for value in scores]
    (plain,) = one_pair({"s": Samples(scores, worse, True)})
    (one,) = one_pair({"s": Samples(scores, worse, True, lost_b=5)})
    assert (one.verdict, one.holm_p) == ("better", plain.holm_p)
    assert one_pair({"s": Samples(scores, worse, True, lost_a=1)})[0].verdict == "better"
