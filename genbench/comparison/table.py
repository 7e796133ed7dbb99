"""The table of a comparison: one per dataset, methods in rows, scores in columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from genbench.comparison.cells import count_cell, facts_of, score_cell
from genbench.comparison.columns import (
    ScoreColumn,
    check_wanted,
    exact_name,
    find_column,
    make_columns,
)
from genbench.comparison.notes import notes_on
from genbench.comparison.pareto import pareto_rows
from genbench.comparison.rows import Row, ScoreKey, as_trained, groups, make_rows
from genbench.comparison.tables import Cell, Column, Table
from genbench.comparison.winners import best_rows
from genbench.runs.result import Result


def compare(
    results: Iterable[Result],
    metrics: Sequence[str] = (),
    show_all: bool = False,
    sort: str | None = None,
    pareto: Sequence[str] = (),
) -> list[Table]:
    """Make one table per dataset: `arenas` as tables."""
    found = arenas(results, metrics, show_all, sort, pareto)
    return [table_of(arena, pareto) for arena in found]


@dataclass(frozen=True)
class Arena:
    """What is compared on one dataset: methods, best first, and the scores that are shown."""

    dataset: str
    rows: Sequence[Row]
    columns: Sequence[ScoreColumn]


def arenas(
    results: Iterable[Result],
    metrics: Sequence[str] = (),
    show_all: bool = False,
    sort: str | None = None,
    pareto: Sequence[str] = (),
) -> list[Arena]:
    """Group runs into rows and scores into columns; those that `sort` and `pareto` name are in it.

    Raises UserMistake for a score that no run has.
    """
    rows = make_rows(results)
    check_wanted(rows, metrics)
    check_wanted(rows, [sort] if sort else [], f"--sort {sort}: ")
    check_wanted(rows, pareto, f"--pareto {','.join(pareto)}: ")
    found = []
    for dataset in sorted({row.dataset for row in rows}):
        own = [row for row in rows if row.dataset == dataset]
        also = [*([sort] if sort else []), *pareto]
        columns = make_columns(own, metrics, show_all, also)
        found.append(Arena(dataset, _sorted(own, columns, sort), columns))
    return found


def table_of(arena: Arena, pareto: Sequence[str] = (), notes: Sequence[str] = ()) -> Table:
    """Write methods in rows and scores in columns; below them `notes` and those of `notes_on`."""
    rows, columns = arena.rows, arena.columns
    facts = facts_of(rows)
    equal = [fact for fact in facts if fact.note and fact.same]
    shown = [fact for fact in facts if fact not in equal and any(fact.values)]
    best, marked = _best(rows, columns)
    chosen, choice = pareto_rows(rows, columns, pareto) if pareto else ([], [])
    heads = [
        Column("model", "model", numeric=False),
        *(Column(exact_name(c, columns), c.header) for c in columns),
        *(fact.column for fact in shown),
        *([Column("pareto", "Pareto", numeric=False)] if choice else []),
        Column("runs", "n", numeric=False),
    ]
    cells = [
        [
            Cell(row.label, {"label": row.label}),
            *(
                score_cell(row, column, best.get((column.key, row.prior)) is row)
                for column in columns
            ),
            *(Cell(fact.texts[i], {"value": fact.values[i]}) for fact in shown),
            *([_pareto_cell(row in chosen)] if choice else []),
            count_cell(row),
        ]
        for i, row in enumerate(rows)
    ]
    count = sum(len(row.runs) + len(row.unfinished) for row in as_trained(rows))
    summary = "; ".join([f"{count} runs" if count > 1 else "1 run", *(fact.note for fact in equal)])
    return Table(
        arena.dataset, heads, cells, [summary, *notes, *marked, *choice, *notes_on(rows, columns)]
    )


def _best(
    rows: Sequence[Row], columns: Sequence[ScoreColumn]
) -> tuple[dict[tuple[ScoreKey, str], Row], list[str]]:
    """The best row of each column among those of one prior; notes say what the mark means."""
    best: dict[tuple[ScoreKey, str], Row] = {}
    notes: list[str] = []
    for group in groups(rows):
        prior = group[0].prior
        if prior and len(group) < 2:  # nothing to be better than
            continue
        found, said = best_rows(group, columns)
        best |= {(key, prior): row for key, row in found.items()}
        notes += [f"{prior}: {note}" if prior else note for note in said]
    return best, notes


def _pareto_cell(inside: bool) -> Cell:
    return Cell("yes" if inside else "", {"value": inside})


def _sorted(rows: list[Row], columns: Sequence[ScoreColumn], sort: str | None) -> list[Row]:
    """Best first by `sort` or the first column; floors and rows without the score last."""
    column = find_column(columns, sort) if sort else None
    column = column or (columns[0] if columns else None)

    def position(row: Row) -> tuple[bool, bool, float, str]:
        values = row.values(column.key) if column else {}
        best_first = -1 if column and column.example.higher_is_better else 1
        first = best_first * mean(values.values()) if values else 0.0
        return row.untrained, not values, first, row.label

    return sorted(rows, key=position)
