"""Cells: a method's score over its seeds, how its runs ended, what they cost."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from genbench.comparison.columns import ScoreColumn
from genbench.comparison.rows import Row
from genbench.comparison.settings import images_text
from genbench.comparison.significance import SEEDS_FOR_SPREAD
from genbench.comparison.tables import Cell, Column, number
from genbench.comparison.winners import images_shown

FACTS = ("decoder_parameters", "images", "seconds", "pareto")


def score_cell(row: Row, column: ScoreColumn, best: bool = False) -> Cell:
    """Mean ± sd (ddof 1) over the seeds; in `exact` also n, every value and its run."""
    by_run = row.values(column.key)
    values = list(by_run.values())
    if not values:
        return Cell()
    sd = stdev(values) if len(values) > 1 else None
    text = number(mean(values))
    if sd is not None and len(values) >= SEEDS_FOR_SPREAD:
        text += f" ± {number(sd, 2)}"
    if len(values) < len(row.runs):
        text += f" (n={len(values)})"
    if row.doubtful(column.key):
        text = f"({text})"
    exact = {
        "mean": mean(values),
        "sd": sd,
        "n": len(values),
        "values": values,
        "runs": list(by_run),
        "unit": column.example.unit,
        "higher_is_better": column.example.higher_is_better,
        "protocol": column.example.protocol,
        "card": dict(column.example.card),
        "best": best,
    }
    return Cell(text, exact, best)


def count_cell(row: Row) -> Cell:
    """How many runs finished, and how many ended otherwise, by how."""
    counts: dict[str, int] = defaultdict(int)
    for run in row.unfinished:
        counts[run.status] += 1
    extra = ", ".join(f"+{count} {status}" for status, count in sorted(counts.items()))
    text = f"{len(row.runs)} ({extra})" if extra else str(len(row.runs))
    return Cell(text, {"finished": len(row.runs), **counts})


@dataclass(frozen=True)
class Fact:
    """Something that a row cost, in a column only where rows differ in it."""

    column: Column
    values: list[float | None]  # one per row
    texts: list[str]
    note: str  # said instead of a column, where it is the same in all trained rows

    @property
    def same(self) -> bool:
        """Equal in every row that has it, floors apart."""
        return len({value for value in self.values if value}) <= 1 and any(self.values)


def facts_of(rows: Sequence[Row]) -> list[Fact]:
    """Decoder parameters, images (steps x batch) and seconds of training, row by row."""
    decoders = [row.any_run().cost.get("parameters", {}).get("decoder") for row in rows]
    images = [images_shown(row) for row in rows]
    times = [[r.budget["seconds"] for r in row.runs if r.budget.get("seconds")] for row in rows]
    seconds = [mean(own) if own else None for own in times]
    return [
        Fact(
            Column("decoder_parameters", "decoder"),
            decoders,
            [number(d) for d in decoders],
            f"one decoder for all, {number(next(filter(None, decoders), None))} parameters",
        ),
        Fact(
            Column("images", "images"),
            images,
            [images_text(round(i)) if i is not None else "" for i in images],
            f"{images_text(round(next(filter(None, images), 0)))} images (steps x batch) each",
        ),
        Fact(Column("seconds", "seconds"), seconds, [number(s, 3) for s in seconds], ""),
    ]
