"""Other shapes of a table: folded to a terminal, with counts, datasets in columns."""

import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from genbench.comparison.cells import FACTS
from genbench.comparison.tables import Cell, Column, Table


def folded(table: Table) -> list[Table]:
    """Break a table that is wider than the terminal into parts of whole columns; rows repeat."""
    widths = [
        max(len(column.header), *(len(row[place].text) for row in table.rows)) + 2
        for place, column in enumerate(table.columns)
    ]
    room = max(80, shutil.get_terminal_size((100, 24)).columns) - 1 - widths[0]
    blocks: list[list[int]] = [[]]
    for place, width in enumerate(widths[1:], start=1):
        if blocks[-1] and sum(widths[p] for p in blocks[-1]) + width > room:
            blocks.append([])
        blocks[-1].append(place)
    parts = [
        Table(
            table.title,
            [table.columns[place] for place in (0, *block)],
            [[row[place] for place in (0, *block)] for row in table.rows],
        )
        for block in blocks
    ]
    return [*parts[:-1], replace(parts[-1], notes=table.notes)]


def with_counts(table: Table) -> Table:
    """Add a column for each way in which runs ended other than finished."""
    places = [i for i, column in enumerate(table.columns) if column.key == "runs"]
    counts = [dict(row[i].exact) for row in table.rows for i in places]
    ways = sorted({way for one in counts for way in one} - {"finished"})
    if not ways:
        return table
    rows = [
        [*row, *(Cell(str(one.get(way, 0)), {"value": one.get(way, 0)}) for way in ways)]
        for row, one in zip(table.rows, counts, strict=True)
    ]
    return replace(table, columns=[*table.columns, *(Column(w, w) for w in ways)], rows=rows)


def by_dataset(tables: Sequence[Table]) -> list[Table]:
    """Turn tables of one dataset each into tables of one score each, datasets in columns."""
    facts = {*FACTS, "model", "runs"}
    keys = list(dict.fromkeys(c.key for t in tables for c in t.columns if c.key not in facts))
    notes = [f"{table.title}: {note}" for table in tables for note in table.notes]
    parts = [_turned(key, tables) for key in keys]
    return [*parts[:-1], *(replace(part, notes=notes) for part in parts[-1:])]


def _turned(key: str, tables: Sequence[Table]) -> Table:
    cells: dict[str, dict[str, Cell]] = defaultdict(dict)
    heads = {}
    for table in tables:
        place = next((i for i, column in enumerate(table.columns) if column.key == key), None)
        if place is not None:
            heads[table.title] = table.columns[place].header
        for row in table.rows:
            own = cells[row[0].text]
            if place is not None:
                own[table.title] = row[place]
            own[f"n {table.title}"] = row[-1]
    columns = [Column("model", "model", numeric=False)]
    for dataset, header in heads.items():
        arrow = header[-1] if header[-1] in "↑↓" else ""
        columns.append(Column(dataset, f"{dataset} {arrow}".rstrip()))
        columns.append(Column(f"n {dataset}", "n", numeric=False))
    return Table(
        key,
        columns,
        [
            [Cell(label, {"label": label}), *(own.get(c.key, Cell()) for c in columns[1:])]
            for label, own in cells.items()
        ],
    )
