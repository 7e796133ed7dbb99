"""The curves of a run, read from history.csv while it is being written. Imports no torch."""

import csv
from contextlib import suppress
from pathlib import Path
from typing import Any

FILENAME = "history.csv"
SPENT = ("seconds", "multiply_adds")  # columns of what training had cost until a row
TAIL = 65_536  # bytes that surely hold the last rows


def last_row(directory: Path) -> dict[str, str]:
    """The last complete row, by column; empty where there is none."""
    path = directory / FILENAME
    with suppress(OSError, ValueError, StopIteration, csv.Error):
        with path.open("rb") as file:
            header = file.readline().decode()
            file.seek(max(0, path.stat().st_size - TAIL))
            tail = file.read().decode(errors="replace")
        lines = [line for line in tail[: tail.rfind("\n") + 1].splitlines() if line]
        if lines and lines[-1] != header.strip():
            columns, row = next(csv.reader([header])), next(csv.reader([lines[-1]]))
            if len(columns) == len(row):
                return dict(zip(columns, row, strict=True))
    return {}


def last_value(directory: Path, name: str) -> tuple[int, float] | None:
    """The last row's (images, value) of a column; None where it is blank or missing."""
    row = last_row(directory)
    if not row.get(name):
        return None
    return int(float(row["images"])), float(row[name])


def read_history(directory: Path, axis: str = "images") -> dict[str, list[tuple[float, float]]]:
    """Points (images, value) of everything in history.csv; empty where there is none.

    `axis` names another column to stand first; rows that lack it are left out.
    """
    path, points = directory / FILENAME, dict[str, list[tuple[float, float]]]()
    if not path.exists():
        return points
    for row in whole_rows(path):
        place = row.pop(axis, None)
        if not place:
            continue
        for name, value in row.items():
            if value:
                points.setdefault(name, []).append((float(place), float(value)))
    return points


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a history; a last line that was cut short is none."""
    with path.open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [dict(row) for row in csv.DictReader(lines)]
