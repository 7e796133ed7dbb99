"""How far two methods are apart beyond the chance of their seeds. Imports SciPy when it is asked.

Welch's t-interval on the difference of two means (Welch 1947), and Holm's correction where several
scores are looked at (Holm 1979). Seeds are the sample: an interval over images covers a tenth of what
another seed changes. Under five seeds nothing is concluded; under three not even a spread is shown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, variance
from typing import Literal

SEEDS_FOR_SPREAD = 3  # below, a ± would be a guess
SEEDS_FOR_VERDICT = 5  # below, a test at 5 % finds 2 sd in one case of three (Welch, 3 seeds)
LEVEL = 0.05
Verdict = Literal["better", "worse", "higher", "lower", "undecided", "too few seeds"]


@dataclass(frozen=True)
class Interval:
    """A difference of means with its 95 % interval and two-sided p-value."""

    delta: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Samples:
    """One score of two methods, a value per seed; `higher_is_better` is None for no direction."""

    a: Sequence[float]
    b: Sequence[float]
    higher_is_better: bool | None


@dataclass(frozen=True)
class Difference:
    """How method `a` stands to method `b` on a score.

    `delta` is the mean of `a` minus that of `b`, in the score's unit. The interval and `p` are None
    below three seeds, `holm_p` (over the scores that were compared together) below five. `verdict` is
    of `a`: higher or lower where the score has no better.
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
        return cls(len(values), mean(values), variance(values))


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
    """Holm's step-down adjustment: reject where it is below the level, and the family's error holds."""
    adjusted, floor = [0.0] * len(p_values), 0.0
    ordered = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(ordered):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = floor
    return adjusted


def differences(a: str, b: str, scores: Mapping[str, Samples]) -> list[Difference]:
    """Compare two methods on each score that both have; Holm over those with five seeds each."""
    found = {name: one for name, one in scores.items() if one.a and one.b}
    intervals = {n: welch(s.a, s.b) for n, s in found.items() if _seeds(s) >= SEEDS_FOR_SPREAD}
    tested = [n for n, s in found.items() if _seeds(s) >= SEEDS_FOR_VERDICT]
    corrected = dict(zip(tested, holm([intervals[n].p for n in tested]), strict=True))
    result = []
    for name, one in found.items():
        interval, delta = intervals.get(name), mean(one.a) - mean(one.b)
        result.append(
            Difference(
                metric=name,
                a=a,
                b=b,
                delta=delta,
                low=interval.low if interval else None,
                high=interval.high if interval else None,
                p=interval.p if interval else None,
                holm_p=corrected.get(name),
                n_a=len(one.a),
                n_b=len(one.b),
                verdict=_verdict(delta, corrected.get(name), one.higher_is_better),
                higher_is_better=one.higher_is_better,
            )
        )
    return result


def _seeds(samples: Samples) -> int:
    return min(len(samples.a), len(samples.b))


def _verdict(delta: float, holm_p: float | None, higher_is_better: bool | None) -> Verdict:
    if holm_p is None:
        return "too few seeds"
    if holm_p >= LEVEL:
        return "undecided"
    if higher_is_better is None:
        return "higher" if delta > 0 else "lower"
    return "better" if (delta > 0) == higher_is_better else "worse"


def leader(values: Sequence[Sequence[float]], higher_is_better: bool) -> tuple[int, float] | None:
    """Of several methods the place of the best mean, and the largest p of it against any other.

    That it is better than all others is claimed only if each single difference holds, so the largest
    p is that of the claim (intersection-union). None for a single method, or below five seeds of any.
    """
    if len(values) < 2 or min(len(own) for own in values) < SEEDS_FOR_VERDICT:
        return None
    samples = [_Moments.of(own) for own in values]
    means = [own.mean if higher_is_better else -own.mean for own in samples]
    best = means.index(max(means))
    others = (own for place, own in enumerate(samples) if place != best)
    return best, max(_welch(samples[best], own).p for own in others)
