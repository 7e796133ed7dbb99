"""The expected best of k trials, so that searches with different numbers of trials can be compared.

Dodge et al. 2019, Show Your Work; drawn without replacement, which is unbiased (Tang et al. 2020,
Showing Your Work Doesn't Always Work).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import comb
from statistics import mean

from genbench.comparison.columns import ScoreColumn, bare, exact_name, find_column
from genbench.comparison.rows import Row, as_trained
from genbench.comparison.table import Arena
from genbench.comparison.tables import Cell, Column, Table, number
from genbench.comparison.winners import equal_budgets
from genbench.errors import UserMistake
from genbench.runs.status import PRUNED


def chances(values: Sequence[float], k: int, failed: int = 0) -> list[float]:
    """How likely each of the trials, lower being better, is the best of k of them.

    The k are drawn without replacement from `values` and `failed` trials without a value, which are
    worse than any: the trial at place i of n = len(values) + failed, from 0, is the best of
    C(n - 1 - i, k - 1) of the C(n, k) draws. Draws of failures alone are left out, and equal trials
    share. ValueError unless 1 <= k <= n and there is a value.
    """
    total = len(values) + failed
    if not values or not 1 <= k <= total:
        raise ValueError(f"cannot draw {k} of {total} trials, {len(values)} with a value")
    draws = comb(total, k) - comb(failed, k)
    ordered = sorted(range(len(values)), key=lambda place: values[place])
    result = [0.0] * len(values)
    rank = 0
    for _, equal in groupby(ordered, key=lambda place: values[place]):
        places = list(equal)
        ways = sum(comb(total - 1 - r, k - 1) for r in range(rank, rank + len(places)))
        for place in places:
            result[place] = ways / draws / len(places)
        rank += len(places)
    return result


def expected_best(
    values: Sequence[float], k: int, higher_is_better: bool, failed: int = 0
) -> float:
    """Mean of the best of k trials over all draws; see `chances`."""
    sign = -1 if higher_is_better else 1
    found = chances([sign * value for value in values], k, failed)
    return sum(chance * value for chance, value in zip(found, values, strict=True))


@dataclass(frozen=True)
class Trials:
    """The trials of one model. A trial is a method, its value the mean over its seeds."""

    model: str
    rows: Sequence[Row]  # with a value of the score that chooses
    failed: int  # ended without a value
    open: int  # running or interrupted: may still get a value


def best_of_tables(arenas: Sequence[Arena], k: int, by: str | None) -> list[Table]:
    """Make a table per dataset: models in rows, what the best of k trials has, chosen on `by`.

    `by` names a score; without one the first column chooses. UserMistake for k < 1 or a score without
    a better side.
    """
    if k < 1:
        raise UserMistake(f"--best-of {k}: give the number of trials, 1 or more")
    return [_table(arena, k, by) for arena in arenas]


def _table(arena: Arena, k: int, by: str | None) -> Table:
    chooser = (find_column(arena.columns, by) if by else None) or next(iter(arena.columns), None)
    if chooser is None:
        raise UserMistake(f"--best-of {k}: no run on {arena.dataset} has a score to choose by")
    if chooser.example.higher_is_better is None:
        raise UserMistake(
            f"--best-of {k}: {chooser.key[0]} is neither better high nor low; choose with --sort"
        )
    columns = [chooser, *(column for column in arena.columns if column is not chooser)]
    found = _trials(arena.rows, chooser)
    lines = [(one, _cells(one, columns, k)) for one in found]
    sign = -1 if chooser.example.higher_is_better else 1
    lines.sort(key=lambda line: (not line[1][0].text, sign * line[1][0].exact.get("value", 0)))
    heads = [
        Column("model", "model", numeric=False),
        *(Column(exact_name(column, columns), column.header) for column in columns),
        Column("trials", "trials"),
        Column("failed", "failed"),
    ]
    rows = [
        [
            Cell(one.model, {"label": one.model}),
            *cells,
            Cell(str(len(one.rows) + one.failed), {"value": len(one.rows) + one.failed}),
            Cell(str(one.failed), {"value": one.failed}),
        ]
        for one, cells in lines
    ]
    return Table(f"{arena.dataset}: best of {k}", heads, rows, _notes(found, chooser, k))


def _trials(rows: Sequence[Row], chooser: ScoreColumn) -> list[Trials]:
    by_model: dict[str, list[Row]] = {}
    for row in as_trained(rows):
        if not row.untrained:
            by_model.setdefault(row.model, []).append(row)
    found = []
    for model, own in by_model.items():
        valued = [r for r in own if r.values(chooser.key) and not r.doubtful(chooser.key)]
        others = [row for row in own if row not in valued]
        unfinished = sum(_is_open(row) for row in others)
        found.append(Trials(model, valued, len(others) - unfinished, unfinished))
    return found


def _is_open(row: Row) -> bool:
    """Without a finished run, and with one that is running or can be resumed."""
    return not row.runs and any(
        run.status == "running" or (run.status == "interrupted" and run.reason != PRUNED)
        for run in row.unfinished
    )


def _cells(trials: Trials, columns: Sequence[ScoreColumn], k: int) -> list[Cell]:
    """Expected values of the chosen trial: of the score that chooses, then of the others."""
    total = len(trials.rows) + trials.failed
    if not trials.rows or k > total:
        return [Cell()] * len(columns)
    sign = -1 if columns[0].example.higher_is_better else 1
    means = [mean(row.values(columns[0].key).values()) for row in trials.rows]
    found = chances([sign * value for value in means], k, trials.failed)
    return [_cell(trials.rows, found, column) for column in columns]


def _cell(rows: Sequence[Row], found: Sequence[float], column: ScoreColumn) -> Cell:
    pairs = [
        (chance, list(row.values(column.key).values()))
        for chance, row in zip(found, rows, strict=True)
        if chance > 0
    ]
    if not all(values for _, values in pairs):
        return Cell()  # a trial that may be chosen lacks it
    value = sum(chance * mean(values) for chance, values in pairs)
    return Cell(number(value), {"value": value})


def _notes(found: Sequence[Trials], chooser: ScoreColumn, k: int) -> list[str]:
    name = bare(chooser)
    notes = [
        f"mean over all draws of {k} {'trial' if k == 1 else 'trials'} of a model, without replacement, of the trial that is best "
        f"in {name} (Dodge et al. 2019); other scores are those of that trial",
        "a trial is a method, its value the mean over its seeds; failed trials are drawn too",
        f"chosen on the {name} that is shown: report the winner from fresh seeds",
    ]
    for one in found:
        total = len(one.rows) + one.failed
        if not one.rows or total < k:
            trials = "1 trial" if total == 1 else f"{total} trials"
            notes.append(f"{one.model}: {trials}, {one.failed} failed: too few for {k}")
        if one.open:
            notes.append(f"{one.model}: {one.open} not counted, running or interrupted")
    if not equal_budgets([row for one in found for row in one.rows]):
        notes.append("the trials were trained for UNEQUAL numbers of images")
    return notes
