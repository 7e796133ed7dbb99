"""The galleries that evaluations keep, kind by kind, all methods side by side. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genbench.comparison.page.pictures import Gallery, Picture
from genbench.runs.gallery import CAPTIONS, FILLED_BY, VALUES, KeptGallery, read_gallery


@dataclass(frozen=True)
class Failures:
    """A gallery for each kind that a method has, and which methods keep none."""

    galleries: Sequence[Gallery]
    absent: Sequence[str]


def failures(where: Mapping[str, Sequence[Path]]) -> Failures | None:
    """What the first seed of every method keeps; None without methods."""
    kept = {label: read_gallery(own[0]) for label, own in where.items() if own}
    if not kept:
        return None
    absent = [
        f"{label}: `{FILLED_BY.format(run=where[label][0].name)}` writes it"
        for label, own in kept.items()
        if own is None
    ]
    found = {label: own for label, own in kept.items() if own is not None}
    galleries = [
        Gallery(kind, f"{caption}. Numbers: {VALUES[kind]}.", pictures, [])
        for kind, caption in CAPTIONS.items()
        if (pictures := _pictures(kind, found))
    ]
    return Failures(galleries, absent)


def _pictures(kind: str, kept: Mapping[str, KeptGallery]) -> list[Picture]:
    return [
        Picture(label, sheet.path, sheet.note, sheet.texts, sheet.columns)
        for label, own in kept.items()
        for sheet in own.sheets
        if sheet.kind == kind
    ]
