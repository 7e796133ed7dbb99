"""Priors in a table: side by side, and what they are in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from genbench.comparison.cells import FACTS
from genbench.comparison.rows import Row, groups
from genbench.comparison.tables import Cell, Column, Table

TRAINED = "as trained"  # the column of the prior of training

WORDS = {
    "mixture": "a mixture of Gaussians fitted to {codes} of {images} training images",
    "flow": "a rectified flow fitted to {codes} of {images} training images",
    "aggregated": "the codes of {images} training images themselves: a ceiling that copies, and no prior",
    "truncated": "N(0, I) made narrower: precision against recall, of which one row is one point",
}


def by_prior(shown: Sequence[Row], table: Table) -> list[Table]:
    """Turn a table of these rows into one per score: trainings in rows, priors in columns."""
    names = list(dict.fromkeys(["", *sorted(row.prior for row in shown)]))
    trainings = list(dict.fromkeys(row.training for row in shown))
    lines = {(row.training, row.prior): line for row, line in zip(shown, table.rows, strict=True)}
    heads = [Column("model", "model", numeric=False)]
    heads += [Column(name or TRAINED, name or TRAINED) for name in names]
    heads += [table.columns[-1]]
    places = [
        place for place, column in enumerate(table.columns)
        if column.numeric and column.key not in FACTS
    ]  # fmt: skip
    parts = []
    for place in places:
        rows = [
            [
                Cell(training, {"label": training}),
                *(lines[training, name][place] if (training, name) in lines else Cell() for name in names),
                lines[training, ""][-1],
            ]
            for training in trainings
        ]  # fmt: skip
        parts.append(Table(f"{table.title}: {table.columns[place].header}", heads, rows))
    if not parts:
        return [table]
    return [*parts[:-1], replace(parts[-1], notes=table.notes)]


def notes_on_priors(rows: Iterable[Row]) -> list[str]:
    """Say of each other prior what it is, and that no test compares it with that of training."""
    others = [group[0] for group in groups(rows) if group[0].prior]
    if not others:
        return []
    notes = list(dict.fromkeys(f"{_kind(row)}: {_words(row.defined)}" for row in others))
    return [
        *notes,
        "rows of several priors are of the same trainings, so that they are no seeds of each other: only "
        "rows of one prior are tested against each other",
    ]


def _kind(row: Row) -> str:
    return f"{row.defined['prior']} prior"


def _words(prior: Mapping[str, Any]) -> str:
    codes = prior.get("codes") or {}
    images = codes.get("images") or {}
    count = images.get("subset", images).get("n", 0)
    draws = codes.get("draws", 1)
    many = f"{count * draws:,} codes"
    return WORDS.get(str(prior["prior"]), "see its card").format(codes=many, images=f"{count:,}")
