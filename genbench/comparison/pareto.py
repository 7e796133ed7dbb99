"""The Pareto set: methods that no other one equals or beats in all of several scores."""

from collections.abc import Sequence
from statistics import mean

from genbench.comparison.columns import ScoreColumn, find_column
from genbench.comparison.rows import Row
from genbench.errors import UserMistake


def undominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points to which no other is lower in a coordinate and higher in none."""

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    return [
        place
        for place, point in enumerate(points)
        if not any(beats(tuple(other), tuple(point)) for other in points)
    ]


def pareto_rows(
    rows: Sequence[Row], columns: Sequence[ScoreColumn], names: Sequence[str]
) -> tuple[list[Row], list[str]]:
    """Find the rows of the Pareto set by means over seeds; notes name them, and rows that are left out.

    Floors and rows without one of the scores, or with one in brackets, are left out. A table without one
    of the columns has no set. UserMistake for a score without direction.
    """
    found = [find_column(columns, name) for name in names]
    chosen = [column for column in found if column is not None]
    if len(chosen) < len(names):
        return [], []
    trained = [row for row in rows if not row.untrained and row.runs]
    entered = [row for row in trained if all(_has_score(row, column) for column in chosen)]
    signs = [_sign(column) for column in chosen]
    points = [
        [sign * mean(row.values(c.key).values()) for sign, c in zip(signs, chosen, strict=True)]
        for row in entered
    ]
    best = [entered[place] for place in undominated(points)]
    notes = [
        f"Pareto set of {' and '.join(c.header for c in chosen)}, by means: "
        + (", ".join(row.label for row in best) or "no row has all of them")
    ]
    others = [row.label for row in trained if row not in entered]
    if others and best:
        notes.append(f"left out of the Pareto set, without one of its scores: {', '.join(others)}")
    return best, notes


def _has_score(row: Row, column: ScoreColumn) -> bool:
    return bool(row.values(column.key)) and not row.doubtful(column.key)


def _sign(column: ScoreColumn) -> int:
    if column.example.higher_is_better is None:
        raise UserMistake(
            f"--pareto {column.key[0]}: it has no direction, neither high nor low is better; choose another score"
        )
    return -1 if column.example.higher_is_better else 1
