"""The scores that are tested together. They do not depend on which columns are shown.

The family is every score with a direction, of final, best and averaged weights alike, that depends on
the model and is not the same in all runs. Otherwise hiding a column would turn a difference that chance
explains into a verdict.
"""

from collections.abc import Sequence

from genbench.comparison.rows import Row, ScoreKey
from genbench.comparison.significance import Pair, Samples
from genbench.runs.score import OF_WEIGHTS, Score

IMAGE_SETS = ("real", "heldout", "validation")  # roles in a card that are no generated images
OF_MODEL = (*OF_WEIGHTS, "curve")  # in cards of a model's scores
DIAGNOSTICS = (
    "_gap",
    "_variance",
    "_error",
    "_floor",
    "milliseconds_evaluations",
)  # ends of quantities that judge the measuring, or the machine


def family(rows: Sequence[Row]) -> dict[ScoreKey, Score]:
    """The tested scores of these rows, by key, each with an example. Leave out floors."""
    examples: dict[ScoreKey, Score] = {}
    for row in rows:
        examples |= row.examples
    return {
        key: example
        for key, example in sorted(examples.items())
        if example.higher_is_better is not None
        and depends_on_model(example)
        and len({value for row in rows for value in compared_values(row, key)}) > 1
    }


def depends_on_model(score: Score) -> bool:
    """False for floors, noise levels and other quantities of the images or of the measuring."""
    card = score.card
    if score.quantity.endswith(DIAGNOSTICS):
        return False
    of_model = any(name in card for name in OF_MODEL)
    return of_model or not any(role in card for role in IMAGE_SETS)


def compared_values(row: Row, key: ScoreKey) -> list[float]:
    """A value per seed, as it is tested.

    A copy rate at or below that of new images is as good as any: it counts as that of new images.
    """
    values = list(row.values(key).values())
    least = null_copy_rate(row.examples[key]) if key in row.examples else None
    return values if least is None else [max(value, least) for value in values]


def null_copy_rate(score: Score) -> float | None:
    """The copy rate of new images, which its card states; None for any other score."""
    if score.quantity != "copy_rate":
        return None
    quantile = score.card.get("estimator", {}).get("quantile")
    return None if quantile is None else float(quantile)


def pair(row: Row, versus: Row, key: ScoreKey, name: str, tested: bool = True) -> Pair | None:
    """Two rows on one score called `name`; None unless both have a value and none is in brackets."""
    a, b = compared_values(row, key), compared_values(versus, key)
    if not a or not b or row.doubtful(key) or versus.doubtful(key):
        return None
    direction = row.examples[key].higher_is_better
    samples = Samples(a, b, direction, lost_runs(row, key), lost_runs(versus, key))
    return Pair(name, row.label, versus.label, samples, tested)


def lost_runs(row: Row, key: ScoreKey) -> int:
    """Runs that count as worse than any value: lost ones, and finished ones whose score is NaN."""
    return len(row.lost) + sum(score.status == "nonfinite" for _, score in row.scores(key))
