"""Which cells may be called best: better than every other trained row beyond the chance of seeds."""

from collections.abc import Mapping, Sequence
from statistics import mean

from genbench.comparison.columns import ScoreColumn
from genbench.comparison.rows import Row, ScoreKey
from genbench.comparison.significance import LEVEL, SEEDS_FOR_VERDICT, holm, leader

NEAR = 1.01  # budgets that differ by less are equal: the last step is a whole one


def equal_budgets(rows: Sequence[Row]) -> bool:
    """Were these rows trained for as many images, to a hundredth, or are all read at one cost?"""
    if equal_cost(rows):
        return True
    images = [shown for row in rows if (shown := images_shown(row))]
    return not images or max(images) <= NEAR * min(images)


def equal_cost(rows: Sequence[Row]) -> str | None:
    """Where all runs are read at an equal cost other than images: what it is, `seconds (60)`."""
    costs = {run.budget.get("at") for row in rows for run in row.runs}
    return costs.pop() if len(costs) == 1 else None


def images_shown(row: Row) -> float | None:
    """Images of the clock, steps x batch, mean over the finished runs; None where there is none."""
    counts = [run.budget["images"] for run in row.runs if run.budget.get("images") is not None]
    return mean(counts) if counts else None


def best_rows(
    rows: Sequence[Row], columns: Sequence[ScoreColumn]
) -> tuple[Mapping[ScoreKey, Row], list[str]]:
    """Map each column to its best row, where it surely is; notes say what the mark means.

    Floors and values in brackets are not compared. Holm over the columns, since each is a chance to be
    best by accident.
    """
    trained = [row for row in rows if not row.untrained]
    leaders: dict[ScoreKey, tuple[Row, float]] = {}
    for column in columns:
        found = _leader(trained, column)
        if found:
            leaders[column.key] = found
    if not leaders:
        return {}, []
    if not equal_budgets(trained):
        return {}, [
            "no best is marked: the rows were trained for unequal numbers of images (try --at)"
        ]
    corrected = holm([p for _, p in leaders.values()])
    pairs = zip(leaders.items(), corrected, strict=True)
    best = {key: row for (key, (row, _)), p in pairs if p < LEVEL}
    test = f"Welch, 95 %, Holm over {_scores(len(leaders))}, {SEEDS_FOR_VERDICT} seeds or more each"
    if not best:
        return {}, [f"no best is marked: none is beyond the chance of seeds ({test})"]
    return best, [f"bold or *: better than every other row beyond the chance of seeds ({test})"]


def _leader(trained: Sequence[Row], column: ScoreColumn) -> tuple[Row, float] | None:
    higher = column.example.higher_is_better
    compared = [row for row in trained if not row.doubtful(column.key) and row.values(column.key)]
    if higher is None:
        return None
    found = leader([list(row.values(column.key).values()) for row in compared], higher)
    return (compared[found[0]], found[1]) if found else None


def _scores(count: int) -> str:
    return "1 score" if count == 1 else f"{count} scores"
