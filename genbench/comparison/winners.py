"""Which cells are marked as best: better than every other trained row beyond the chance of seeds."""

from collections.abc import Mapping, Sequence
from statistics import mean

from genbench.comparison.columns import ScoreColumn, bare
from genbench.comparison.family import compared_values, family, lost_runs
from genbench.comparison.rows import Row, ScoreKey
from genbench.comparison.settings import images_text
from genbench.comparison.significance import LEVEL, SEEDS_FOR_VERDICT, Leader, holm, leader
from genbench.runs.score import Score

NEAR = 1.01  # budgets that differ by less are equal: the last step is a whole one


def equal_budgets(rows: Sequence[Row]) -> bool:
    """Whether these rows were trained for as many images, to 1 %, or are all read at one cost."""
    if equal_cost(rows):
        return True
    images = [shown for row in rows if (shown := images_shown(row))]
    return not images or max(images) <= NEAR * min(images)


def equal_cost(rows: Sequence[Row]) -> str | None:
    """Where all runs are read at an equal cost other than images: what it is, `seconds (60)`."""
    costs = {run.budget.get("at") for row in rows for run in row.runs}
    return costs.pop() if len(costs) == 1 else None


def more_real_images(rows: Sequence[Row]) -> str:
    """Which of these rows were shown more real images than another, as steps x batch does not tell; else empty.

    A model with several discriminator steps takes as many batches in a step.
    """
    found = {row.label: count for row in rows if (count := _real_images(row))}
    least = min(found.values(), default=0.0)
    more = {label: count for label, count in found.items() if count > NEAR * least}
    if not more:
        return ""
    shown = ", ".join(f"{label} saw {images_text(round(count))}" for label, count in more.items())
    return f"{shown} real images, others as few as {images_text(round(least))}"


def _real_images(row: Row) -> float | None:
    counts = [run.budget["real_images"] for run in row.runs if run.budget.get("real_images")]
    return mean(counts) if counts else None


def images_shown(row: Row) -> float | None:
    """Images of the clock, steps x batch, mean over the finished runs; None where there is none."""
    counts = [run.budget["images"] for run in row.runs if run.budget.get("images") is not None]
    return mean(counts) if counts else None


def best_rows(
    rows: Sequence[Row], columns: Sequence[ScoreColumn]
) -> tuple[Mapping[ScoreKey, Row], list[str]]:
    """Map each column to its best row, where there is one; notes say what the mark means.

    Floors and values in brackets are not compared. Holm over the whole family, whatever `columns` are
    shown, since each score is a chance to be best by accident. Lost runs count as worst.
    """
    trained = [row for row in rows if not row.untrained]
    leaders: dict[ScoreKey, tuple[Row, Leader]] = {}
    for key, example in family(trained).items():
        found = _leader(trained, key, example)
        if found:
            leaders[key] = found
    if not leaders:
        return {}, []
    if not equal_budgets(trained):
        return {}, [
            "no best is marked: the rows were trained for unequal numbers of images (try --at)"
        ]
    best = _sure(leaders, [one.p for _, one in leaders.values()])
    of_finished = _sure(leaders, [one.p_finished for _, one in leaders.values()])
    shown = {column.key for column in columns}
    test = (
        f"Welch, 95 %, Holm over {_scores(len(leaders))}, shown or not, {SEEDS_FOR_VERDICT} seeds or more "
        "each, lost runs count as worst"
    )
    if shown & set(best):
        notes = [f"bold or *: better than every other row beyond the chance of seeds ({test})"]
    else:
        notes = [f"no best is marked: none is beyond the chance of seeds ({test})"]
    refused = {key: row for key, row in of_finished.items() if key not in best}
    more = more_real_images(trained)
    if more and not equal_cost(trained):
        notes.append(f"budgets are equal in steps x batch; {more}")
    return best, [*notes, *_refused(refused, columns)]


def _sure(
    leaders: Mapping[ScoreKey, tuple[Row, Leader]], p_values: Sequence[float]
) -> dict[ScoreKey, Row]:
    """The leaders whose p-value holds after correction."""
    pairs = zip(leaders.items(), holm(p_values), strict=True)
    return {key: row for (key, (row, _)), p in pairs if p < LEVEL}


def _refused(refused: Mapping[ScoreKey, Row], columns: Sequence[ScoreColumn]) -> list[str]:
    """Name the rows that would be best if lost runs were left out."""
    names: dict[str, list[str]] = {}
    lost: dict[str, int] = {}
    for column in columns:
        if row := refused.get(column.key):
            names.setdefault(row.label, []).append(bare(column))
            lost[row.label] = max(lost.get(row.label, 0), lost_runs(row, column.key))
    return [
        f"not marked: {label} is best in {', '.join(own)} among finished runs only, "
        f"{lost[label]} of its runs {'was' if lost[label] == 1 else 'were'} lost"
        for label, own in names.items()
    ]


def _leader(trained: Sequence[Row], key: ScoreKey, example: Score) -> tuple[Row, Leader] | None:
    compared = [row for row in trained if not row.doubtful(key) and row.values(key)]
    values = [compared_values(row, key) for row in compared]
    lost = [lost_runs(row, key) for row in compared]
    found = leader(values, bool(example.higher_is_better), lost)
    return (compared[found.place], found) if found else None


def _scores(count: int) -> str:
    return "1 score" if count == 1 else f"{count} scores"
