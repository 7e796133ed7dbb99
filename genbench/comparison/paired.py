"""Differences of two rows image by image: what both have of the same held-out images.

The values of an image are averaged over a row's runs, and differences are taken image by image; the mean of
these has a standard error that the images' own variety, common to both, is not in. It is about these
weights and other images, not about other seeds.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.comparison.columns import ScoreColumn, exact_name
from genbench.comparison.rows import Row, ScoreKey
from genbench.comparison.table import Arena
from genbench.comparison.tables import Cell, Column, Table, number
from genbench.comparison.verdicts import find_versus
from genbench.errors import UserMistake
from genbench.runs.per_image import VALUE, ImageValues, read_per_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADS = ("row", "against", "score", "difference", "95 % interval", "se", "images", "runs")
NOTE = (
    "differences image by image, of means over the runs of a row; the interval covers the choice of held-out "
    "images for these weights, not other seeds"
)


def paired_tables(
    arenas: Sequence[Arena], directories: Mapping[str, Path], versus: str | None
) -> list[Table]:
    """A table per dataset: every row against `versus`, or against the first one, in all scores that both have.

    Only scores of one protocol, hence of one set of images, are paired. UserMistake if nothing can be.
    """
    chosen = find_versus([row for arena in arenas for row in arena.rows], versus) if versus else []
    against = {row.dataset: row for row in chosen}
    made = [_table(arena, directories, against.get(arena.dataset)) for arena in arenas]
    found = [table for table in made if table.rows]
    if not found:
        raise UserMistake(
            "--pair-images: no two rows have values of the same images; they are kept of ELBO, IWAE, PSNR, "
            "SSIM and LPIPS since this version: score older runs again with `genbench evaluate`"
        )
    return found


def _table(arena: Arena, directories: Mapping[str, Path], versus: Row | None) -> Table:
    keys = {column.key for column in arena.columns}
    values = {}
    for row in arena.rows:
        if row.runs and not row.prior:
            values[row.label] = _of_row(row, directories, keys)
    reference = versus or next((row for row in arena.rows if values.get(row.label)), None)
    cells = []
    for row in arena.rows:
        if reference is None or row is reference or row.label not in values:
            continue
        for column in arena.columns:
            pair = (
                values[row.label].get(column.key),
                values.get(reference.label, {}).get(column.key),
            )
            if pair[0] and pair[1]:
                cells += _line(
                    (row.label, reference.label), column, arena.columns, pair[0], pair[1]
                )
    heads = [Column(name, name, numeric=name in ("difference", "se", "images")) for name in HEADS]
    return Table(f"{arena.dataset}: paired by image", heads, cells, [NOTE] if cells else [])


def _line(
    labels: tuple[str, str],
    column: ScoreColumn,
    columns: Sequence[ScoreColumn],
    own: Sequence[ImageValues],
    other: Sequence[ImageValues],
) -> list[list[Cell]]:
    """The row of the table, if both are of the same images."""
    if own[0].images.tobytes() != other[0].images.tobytes():
        return []
    difference, error, n = paired(_mean(own), _mean(other))
    low, high = difference - 1.96 * error, difference + 1.96 * error
    unit = column.example.unit
    exact = {"value": difference, "se": error, "low": low, "high": high, "images": n}
    return [
        [
            Cell(labels[0], {"label": labels[0]}),
            Cell(labels[1], {"label": labels[1]}),
            Cell(column.header, {"score": exact_name(column, columns)}),
            Cell(f"{number(difference)} {unit}".rstrip(), exact),
            Cell(f"{number(low, 3)} to {number(high, 3)}", {"low": low, "high": high}),
            Cell(number(error, 2), {"se": error}),
            Cell(f"{n:,}", {"n": n}),
            Cell(f"{len(own)} and {len(other)}", {"own": len(own), "other": len(other)}),
        ]
    ]


def paired(own: "NDArray[np.float64]", other: "NDArray[np.float64]") -> tuple[float, float, int]:
    """Mean of own - other over images, its standard error sd / sqrt(n), and n; NaN error of one image."""
    difference = own - other
    n = len(difference)
    error = float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return float(difference.mean()), error, n


def _mean(kept: Sequence[ImageValues]) -> "NDArray[np.float64]":
    """Each image's mean over runs."""
    import numpy as np

    means: NDArray[np.float64] = np.mean([one.values.astype(np.float64) for one in kept], axis=0)
    return means


def _of_row(
    row: Row, directories: Mapping[str, Path], keys: set[ScoreKey]
) -> dict[ScoreKey, list[ImageValues]]:
    """Values by score, one entry for each run that has the images of the first one."""
    found: dict[ScoreKey, list[ImageValues]] = {}
    for run in row.runs:
        newest = {one.key: one for one in read_per_image(directories[run.run_id])}
        for key, one in newest.items():
            same = found.get(key)
            if one.what != VALUE or key not in keys:
                continue
            if same is None or same[0].images.tobytes() == one.images.tobytes():
                found.setdefault(key, []).append(one)
    return found
