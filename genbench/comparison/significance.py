"""How far two methods are apart beyond the chance of their seeds. SciPy is imported at the first test.

Welch's t-interval on the difference of two means (Welch 1947), and Holm's correction over all that is
tested together (Holm 1979). Seeds are the sample: an interval over images covers a tenth of what another
seed changes. Under five seeds nothing is concluded; under three not even a spread is shown.

Runs that ended without a value (lost runs) count as worse than any value: a method is called better only
if Welch's test says so of the runs with a value and Mann and Whitney's test (1947) of all runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

SEEDS_FOR_SPREAD = 3  # below, a ± would be a guess
SEEDS_FOR_VERDICT = 5  # below, a test at 5 % finds 2 sd in one case of three (Welch, 3 seeds)
LEVEL = 0.05
Verdict = Literal[
    "better",
    "worse",
    "better in finished runs",
    "worse in finished runs",
    "undecided",
    "too few seeds",
    "not tested",
]


@dataclass(frozen=True)
class Interval:
    """A difference of means with its 95 % interval and two-sided p-value."""

    delta: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Samples:
    """One score of two methods, a value per seed, and the number of lost runs of each.

    `higher_is_better` is None for a score without direction, which is never tested.
    """

    a: Sequence[float]
    b: Sequence[float]
    higher_is_better: bool | None
    lost_a: int = 0
    lost_b: int = 0


@dataclass(frozen=True)
class Pair:
    """Two methods, `a` and `b`, on one score. `tested` says whether it belongs to the family."""

    metric: str
    a: str
    b: str
    samples: Samples
    tested: bool = True


@dataclass(frozen=True)
class Difference:
    """How method `a` stands to method `b` on a score.

    `delta` is the mean of `a` minus that of `b`, in the score's unit. The interval and `p` (Welch's) are
    None below three seeds. `holm_p` is corrected over the family and includes lost runs; it is None
    below five seeds and for a score that is not tested. `verdict` is of `a`; `in finished runs` means
    that it holds only if lost runs are left out.
    """

    metric: str
    a: str
    b: str
    delta: float
    low: float | None
    high: float | None
    p: float | None
    holm_p: float | None
    n_a: int
    n_b: int
    verdict: Verdict
    higher_is_better: bool | None = None


def welch(a: Sequence[float], b: Sequence[float], level: float = LEVEL) -> Interval:
    """Interval on mean(a) - mean(b) of samples with variances of their own; two values each at least.

    Values that never vary differ surely, or not at all. ValueError for fewer than two.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a variance needs two values: {len(a)} and {len(b)}")
    return _welch(_Moments.of(a), _Moments.of(b), level)


@dataclass(frozen=True)
class _Moments:
    """What Welch's test needs of a sample."""

    n: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "_Moments":
        """Two values at least; equal values have variance 0 exactly."""
        count = len(values)
        if min(values) == max(values):
            return cls(count, values[0], 0.0)
        mean = math.fsum(values) / count
        squares = math.fsum((value - mean) ** 2 for value in values)
        return cls(count, mean, squares / (count - 1))


def _welch(a: _Moments, b: _Moments, level: float = LEVEL) -> Interval:
    delta = a.mean - b.mean
    parts = a.variance / a.n, b.variance / b.n
    total = sum(parts)
    if total == 0:
        return Interval(delta, delta, delta, 1.0 if delta == 0 else 0.0)
    from scipy.special import stdtr, stdtrit

    error, share = math.sqrt(total), parts[0] / total
    freedom = 1 / (share**2 / (a.n - 1) + (1 - share) ** 2 / (b.n - 1))
    margin = error * float(stdtrit(freedom, 1 - level / 2))
    p = 2 * float(stdtr(freedom, -abs(delta) / error))
    return Interval(delta, delta - margin, delta + margin, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    Rejecting those below a level keeps the chance of any false rejection below that level.
    """
    adjusted, floor = [0.0] * len(p_values), 0.0
    ordered = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(ordered):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = floor
    return adjusted


def rank_p(
    winner: Sequence[float], other: Sequence[float], lost_winner: int = 0, lost_other: int = 0
) -> float:
    """Two-sided exact p-value of Mann and Whitney's test that `winner` has the higher values.

    Lost runs are lower than any value. Ties count against `winner`, between lost runs too, so that the
    p-value is never too small.
    """
    n, m = len(winner) + lost_winner, len(other) + lost_other
    wins = sum(x > y for x in winner for y in other) + len(winner) * lost_other
    losses = n * m - wins
    # orders of n + m values by number of losses: coefficients of prod_i (1 - q^(m + i)) / (1 - q^i)
    orders = [1] + [0] * losses
    for i in range(1, n + 1):
        for place in range(losses, m + i - 1, -1):
            orders[place] -= orders[place - m - i]
        for place in range(i, losses + 1):
            orders[place] += orders[place - i]
    return min(1.0, 2 * sum(orders) / math.comb(n + m, n))


def differences(pairs: Sequence[Pair]) -> list[Difference]:
    """Compare each pair; Holm over all that are tested and have five seeds on both sides.

    Each pair needs a value on both sides.
    """
    intervals = [
        welch(pair.samples.a, pair.samples.b) if _seeds(pair) >= SEEDS_FOR_SPREAD else None
        for pair in pairs
    ]
    tested = {
        place: interval
        for place, (pair, interval) in enumerate(zip(pairs, intervals, strict=True))
        if interval and _is_tested(pair)
    }
    finished = [interval.p for interval in tested.values()]
    counted = [_with_lost(pairs[place].samples, one) for place, one in tested.items()]
    of_finished = dict(zip(tested, holm(finished), strict=True))
    of_all = dict(zip(tested, holm(counted), strict=True))
    return [
        _difference(pair, interval, of_all.get(place), of_finished.get(place))
        for place, (pair, interval) in enumerate(zip(pairs, intervals, strict=True))
    ]


def _difference(
    pair: Pair, interval: Interval | None, holm_p: float | None, holm_p_finished: float | None
) -> Difference:
    a, b = pair.samples.a, pair.samples.b
    delta = math.fsum(a) / len(a) - math.fsum(b) / len(b)
    return Difference(
        metric=pair.metric,
        a=pair.a,
        b=pair.b,
        delta=delta,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        p=interval.p if interval else None,
        holm_p=holm_p,
        n_a=len(a),
        n_b=len(b),
        verdict=_verdict(pair, delta, holm_p, holm_p_finished),
        higher_is_better=pair.samples.higher_is_better,
    )


def _seeds(pair: Pair) -> int:
    return min(len(pair.samples.a), len(pair.samples.b))


def _is_tested(pair: Pair) -> bool:
    directed = pair.samples.higher_is_better is not None
    return pair.tested and directed and _seeds(pair) >= SEEDS_FOR_VERDICT


def _with_lost(samples: Samples, interval: Interval) -> float:
    """The p-value of a difference with lost runs counted as worst: the larger one of both tests."""
    a_wins = (interval.delta > 0) == samples.higher_is_better
    a, b = (samples.a, samples.lost_a), (samples.b, samples.lost_b)
    winner, other = (a, b) if a_wins else (b, a)
    return _claim_p(interval.p, winner, other, bool(samples.higher_is_better))


def _claim_p(
    p: float,
    winner: tuple[Sequence[float], int],
    other: tuple[Sequence[float], int],
    higher_is_better: bool,
) -> float:
    """The p-value of `winner` being better, each with its values and its number of lost runs.

    Lost runs of `other` alone speak for the winner, so Welch's test stands as it is.
    """
    if not winner[1]:
        return p
    sign = 1 if higher_is_better else -1
    values, others = ([sign * value for value in side[0]] for side in (winner, other))
    return max(p, rank_p(values, others, winner[1], other[1]))


def _verdict(
    pair: Pair, delta: float, holm_p: float | None, holm_p_finished: float | None
) -> Verdict:
    if not pair.tested or pair.samples.higher_is_better is None:
        return "not tested"
    if holm_p is None or holm_p_finished is None:
        return "too few seeds"
    better = (delta > 0) == pair.samples.higher_is_better
    if holm_p < LEVEL:
        return "better" if better else "worse"
    if holm_p_finished < LEVEL:
        return "better in finished runs" if better else "worse in finished runs"
    return "undecided"


class Leader(NamedTuple):
    """The method with the best mean: its place, and the p-value of its being better than all others.

    `p` counts lost runs as worst, `p_finished` leaves them out.
    """

    place: int
    p: float
    p_finished: float


def leader(
    values: Sequence[Sequence[float]], higher_is_better: bool, lost: Sequence[int] = ()
) -> Leader | None:
    """Find the method with the best mean; `lost` is the number of lost runs of each, 0 if left out.

    That it is better than all others is claimed only if each single difference holds, so the largest
    p-value is that of the claim (intersection-union). None for a single method, or below five seeds of
    any.
    """
    if len(values) < 2 or min(len(own) for own in values) < SEEDS_FOR_VERDICT:
        return None
    sides = list(zip(values, lost or [0] * len(values), strict=True))
    samples = [_Moments.of(own) for own in values]
    means = [own.mean if higher_is_better else -own.mean for own in samples]
    best = means.index(max(means))
    p_values, counted = [], []
    for place, own in enumerate(samples):
        if place != best:
            p = _welch(samples[best], own).p
            p_values.append(p)
            counted.append(_claim_p(p, sides[best], sides[place], higher_is_better))
    return Leader(best, max(counted), max(p_values))
