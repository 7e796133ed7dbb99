"""The table of docs/performance.md: a column for each processor; measuring on one keeps the others'.

A ratio belongs to the processor that it was measured on: what one computes fast another may not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

BEGIN, END = "<!-- table -->", "<!-- end of table -->"
FIXED = ("", "what", "demand")  # the columns before those of processors
MEMORY = "peak MB, own / peer"  # the last column


class Table(NamedTuple):
    """Cells by (id, what) and column, and what is said of each processor, in order."""

    rows: dict[tuple[str, str], dict[str, str]]
    processors: dict[str, str]


def read(page: str) -> Table:
    """The table between the marks of a page; empty without marks."""
    lines = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    told = [line.removeprefix("- ").partition(": ") for line in lines if line.startswith("- ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    heads, body = (cells[0], cells[2:]) if cells else ([], [])
    rows = {(row[0], row[1]): dict(zip(heads[2:], row[2:], strict=True)) for row in body}
    return Table(rows, {name: rest for name, _, rest in told})


def cells(row: dict[str, Any], processor: str) -> dict[str, str]:
    """The cells of a measured row."""
    if row["ratio"] is None:
        return {"demand": f"{row['demand']}", processor: row["note"]}
    spread = f" ({row['low']:.3g} - {row['high']:.3g})" if "low" in row else ""
    found = {processor: f"{row['ratio']:.3g}{spread}"}
    if row["demand"] is not None:
        at_least = row.get("at_least", row["id"] in ("I1", "I2"))
        met = row["ratio"] >= row["demand"] if at_least else row["ratio"] <= row["demand"]
        found[processor] += "" if met else ", missed"
        found["demand"] = f"{'>=' if at_least else '<='} {row['demand']}"
    if "peak_mb" in row:
        found[MEMORY] = f"{row['peak_mb']:.0f} / {row['peer_peak_mb']:.0f}"
    return found


def merged(before: Table, processor: str, told: str, rows: Sequence[dict[str, Any]]) -> Table:
    """`before` with what was measured on `processor`; its cells that were not measured again stay."""
    all_rows = {key: dict(found) for key, found in before.rows.items()}
    for row in rows:
        what = row.get("what") or row.get("set") or f"against {row.get('peer', '')}"
        all_rows.setdefault((row["id"], what), {}).update(cells(row, processor))
    return Table(all_rows, {**before.processors, processor: told})


def written(table: Table) -> str:
    """Markdown: a line for each processor, then the table."""
    heads = [*FIXED, *table.processors, MEMORY]
    body = [
        [*key, *(found.get(head, "") for head in heads[2:])] for key, found in table.rows.items()
    ]
    lines = ["| " + " | ".join(words) + " |" for words in [heads, ["---"] * len(heads), *body]]
    told = [f"- {name}: {words}" for name, words in table.processors.items()]
    return "\n".join([*told, "", *lines])


def put(path: Path, table: Table) -> None:
    """Replace the table of the page at `path`."""
    page = path.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{written(table)}\n{END}{after}", encoding="utf-8")
