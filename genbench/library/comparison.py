"""A comparison in Python: the tables of `genbench compare`, as text, HTML, rows or a frame."""

import json
from collections.abc import Sequence
from typing import Any

from genbench.comparison.tables import Table, render
from genbench.library.frames import data_frame


class Comparison:
    """The tables of `genbench compare`: one per dataset, and those that were asked for besides."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = list(tables)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping per row, with the exact values of every column as `--format json` has them."""
        found: list[dict[str, Any]] = []
        for table in json.loads(render(self.tables, "json")):
            found += [{"table": table["title"]} | row for row in table["rows"]]
        return found

    def text(self, form: str = "table") -> str:
        """The tables as `table, md, csv, tex, json` or `html`."""
        return render(self.tables, form)

    def frame(self) -> Any:
        """`rows` as a pandas.DataFrame; a score is its mean, with sd and n beside. UserMistake without pandas."""
        return data_frame([_flat(row) for row in self.rows])

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.text("html")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, cell in row.items():
        if not isinstance(cell, dict):
            flat[key] = cell
        elif "mean" in cell:
            flat |= {key: cell["mean"], f"{key} sd": cell["sd"], f"{key} n": cell["n"]}
        else:
            flat[key] = next(iter(cell.values()), None)
    return flat
