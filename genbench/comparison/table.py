"""The table of a comparison: one per dataset, methods in rows, scores in columns."""

from collections.abc import Iterable, Sequence
from statistics import mean

from genbench.comparison.cells import count_cell, facts_of, score_cell
from genbench.comparison.columns import ScoreColumn, check_wanted, exact_name, make_columns
from genbench.comparison.notes import notes_on
from genbench.comparison.rows import Row, make_rows
from genbench.errors import UserMistake
from genbench.results import Result
from genbench.tables import Cell, Column, Table


def compare(
    results: Iterable[Result],
    metrics: Sequence[str] = (),
    show_all: bool = False,
    sort: str | None = None,
) -> list[Table]:
    """Make one table per dataset."""
    rows = make_rows(results)
    check_wanted([run for row in rows for run in row.runs], metrics)
    if sort:
        _check_sort(rows, metrics, show_all, sort)
    datasets = sorted({row.dataset for row in rows})
    return [
        _table(dataset, [row for row in rows if row.dataset == dataset], metrics, show_all, sort)
        for dataset in datasets
    ]


def _table(
    dataset: str, rows: list[Row], metrics: Sequence[str], show_all: bool, sort: str | None
) -> Table:
    columns = make_columns(rows, metrics, show_all)
    rows = _sorted(rows, columns, sort)
    facts = facts_of(rows)
    told = [fact for fact in facts if fact.note and fact.same]
    shown = [fact for fact in facts if fact not in told and any(fact.values)]
    heads = [
        Column("model", "model", numeric=False),
        *(Column(exact_name(c, columns), c.header) for c in columns),
        *(fact.column for fact in shown),
        Column("runs", "n", numeric=False),
    ]
    cells = [
        [
            Cell(row.label, {"label": row.label}),
            *(score_cell(row, column) for column in columns),
            *(Cell(fact.texts[i], {"value": fact.values[i]}) for fact in shown),
            count_cell(row),
        ]
        for i, row in enumerate(rows)
    ]
    count = sum(len(row.runs) + len(row.unfinished) for row in rows)
    arena = "; ".join([f"{count} runs" if count > 1 else "1 run", *(fact.note for fact in told)])
    return Table(dataset, heads, cells, [arena, *notes_on(rows, columns)])


def _check_sort(rows: Sequence[Row], metrics: Sequence[str], show_all: bool, sort: str) -> None:
    """Refuse a column that no dataset's table has; where only one lacks it, the first one sorts."""
    columns = make_columns(rows, metrics, show_all)
    if not any(sort in (column.key[0], column.example.quantity) for column in columns):
        raise UserMistake(f"--sort {sort} is not a column: add --metric {sort}, or choose another")


def _sorted(rows: list[Row], columns: Sequence[ScoreColumn], sort: str | None) -> list[Row]:
    """Best first by `sort` or the first column; floors and rows without the score last."""
    column = next((c for c in columns if sort in (c.key[0], c.example.quantity)), None)
    column = column or (columns[0] if columns else None)

    def position(row: Row) -> tuple[bool, bool, float, str]:
        values = row.values(column.key) if column else {}
        best_first = -1 if column and column.example.higher_is_better else 1
        first = best_first * mean(values.values()) if values else 0.0
        return row.untrained, not values, first, row.label

    return sorted(rows, key=position)
