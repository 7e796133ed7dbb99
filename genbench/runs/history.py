"""Reads history.csv, the curves of a run, also while it is being written. Imports no torch."""

import csv
from contextlib import suppress
from pathlib import Path
from typing import Any

FILENAME = "history.csv"
SPENT = ("seconds", "multiply_adds")  # columns of the cost of training so far
VALIDATION = "validation/"  # begins columns of scores on the validation split
PSNR = "validation/psnr"  # of reconstructions, at every grid; only models with an encoder have it
TAIL = 65_536  # bytes read from the end to find the last row, far longer than a row


def last_row(directory: Path) -> dict[str, str]:
    """The last complete row as {column: text}; empty if there is none."""
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
    """(images, value) of a column in the last row; None if it is blank or missing there."""
    row = last_row(directory)
    if not row.get(name):
        return None
    return int(float(row["images"])), float(row[name])


def read_history(directory: Path, axis: str = "images") -> dict[str, list[tuple[float, float]]]:
    """The points (images, value) of every column; empty if there is no history.csv.

    `axis` names another column to stand in the place of images; rows that lack it are left out.
    """
    path, points = directory / FILENAME, dict[str, list[tuple[float, float]]]()
    if not path.exists():
        return points
    for row in complete_rows(path):
        place = row.pop(axis, None)
        if not place:
            continue
        for name, value in row.items():
            if value:
                points.setdefault(name, []).append((float(place), float(value)))
    return points


def complete_rows(path: Path) -> list[dict[str, Any]]:
    """The complete rows of a history file: a last line without a newline is still being written."""
    with path.open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [dict(row) for row in csv.DictReader(lines)]
