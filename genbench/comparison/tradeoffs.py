"""Two scores against each other, a point per method: what is bought with what. Imports no torch.

Rate against distortion (Alemi et al. 2018), distortion against how real images look, which is a bound on
each other (Blau and Michaeli 2018), precision against recall.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from genbench.comparison.pareto import undominated
from genbench.comparison.rows import Row, ScoreKey
from genbench.runs.score import Score

LEAST = 3  # methods with both scores, below which there is no curve


@dataclass(frozen=True)
class Axis:
    """A score on an axis: what it is called there, and whether more of it is better."""

    quantity: str
    title: str
    higher_is_better: bool = False


RATE = Axis("rate_posthoc", "rate, nats")
DISTORTION = Axis("distortion_posthoc", "distortion, nats (Gaussian, fitted)")
AXES = (
    ("Rate against distortion", RATE, DISTORTION),
    ("Distortion against the FD of samples", DISTORTION, Axis("fd", "FD of samples")),
    ("Distortion against the FD of reconstructions", DISTORTION, Axis("rfd", "rFD")),
    ("Precision against recall", Axis("precision", "precision", True), Axis("recall", "recall", True)),
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A method: the mean over seeds of both scores, and the lowest and highest of each.

    `prior` is the kind of a fitted prior, `width` how wide a truncated one is; that of N(0, I) is infinite.
    """

    label: str
    model: str
    x: float
    y: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    prior: str = ""
    width: float = math.inf


@dataclass(frozen=True)
class Tradeoff:
    """The points of a plot by x, and the places of those on the Pareto front."""

    title: str
    x: Axis
    y: Axis
    points: Sequence[Point]
    front: Sequence[int]
    left_out: Sequence[str] = ()  # methods without one of the scores


def tradeoffs(rows: Sequence[Row]) -> list[Tradeoff]:
    """The plots of trained methods; none with fewer than three points."""
    trained = [row for row in rows if row.runs and not row.untrained]
    found = [_tradeoff(title, x, y, trained) for title, x, y in AXES]
    return [one for one in found if len(one.points) >= LEAST]


def _tradeoff(title: str, x: Axis, y: Axis, rows: Sequence[Row]) -> Tradeoff:
    key_x, key_y = _shared(rows, x.quantity), _shared(rows, y.quantity)
    points = []
    for row in rows:
        point = _point(row, key_x, key_y)
        points += [point] if point else []
    points.sort(key=lambda point: point.x)
    signs = [-1 if axis.higher_is_better else 1 for axis in (x, y)]
    front = undominated([(signs[0] * one.x, signs[1] * one.y) for one in points])
    there = {point.label for point in points}
    lacking = [row.label for row in rows if row.label not in there and not row.prior]
    return Tradeoff(title, x, y, points, front, lacking)


def lines(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points that a line joins, by its name: settings of a model, or truncations of its prior.

    Other priors are no settings of each other.
    """
    found: dict[str, list[Point]] = {}
    for model in dict.fromkeys(point.model for point in points):
        own = [point for point in points if point.model == model]
        usual = [point for point in own if not point.prior]
        narrower = [point for point in own if point.prior == "truncated"]
        if len(usual) > 1:
            found[model] = usual
        if narrower and len(usual) < 2:
            ordered = sorted([*narrower, *usual], key=lambda point: point.width)
            found[f"{model}, truncated"] = ordered
    return {name: own for name, own in found.items() if len(own) > 1}


def _shared(rows: Sequence[Row], quantity: str) -> ScoreKey | None:
    """The card of a quantity that most methods have: final, raw weights on the test, the usual prior."""
    counts = Counter(
        key for row in rows for key, one in row.examples.items() if _counts(one, quantity)
    )
    return max(counts, key=lambda key: (counts[key], key)) if counts else None


def _counts(score: Score, quantity: str) -> bool:
    fake: Mapping[str, object] = score.card.get("fake", {})
    usual = fake.get("weights", "raw") == "raw" and fake.get("latents", "prior") == "prior"
    final = score.checkpoint == "final" and score.split == "test"
    return score.quantity == quantity and final and usual


def _point(row: Row, key_x: ScoreKey | None, key_y: ScoreKey | None) -> Point | None:
    """A row's point, of the seeds that have both scores; None if there are none."""
    if key_x is None or key_y is None or row.doubtful(key_x) or row.doubtful(key_y):
        return None
    by_x, by_y = row.values(key_x), row.values(key_y)
    runs = [run for run in by_x if run in by_y]
    if not runs:
        return None
    xs, ys = [by_x[run] for run in runs], [by_y[run] for run in runs]
    ranges = (min(xs), max(xs)), (min(ys), max(ys))
    prior = str(row.defined["prior"]) if row.prior else ""
    widths = row.defined.get("settings", {}) if prior == "truncated" else {}
    width = float(widths.get("scale", widths.get("threshold", math.inf)))
    return Point(row.label, row.model, mean(xs), mean(ys), *ranges, prior, width)


def in_words(tradeoff: Tradeoff) -> str:
    """The Pareto front in a sentence, and which methods are not in the plot."""
    labels = ", ".join(tradeoff.points[place].label for place in tradeoff.front)
    said = f"On the Pareto front, by means over seeds: {labels}"
    lacking = f"; without one of the scores: {', '.join(tradeoff.left_out)}"
    return said + (lacking if tradeoff.left_out else "") + "."
