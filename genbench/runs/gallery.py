"""Pictures that explain a run's scores: its folder `gallery`, a sheet for each kind and a card. No torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER, CARD, VERSION = "gallery", "gallery.json", 1
FILLED_BY = "genbench evaluate {run} evaluation.gallery=true"
CAPTIONS = {  # by kind, in the order in which they are shown
    "best": "Samples nearest to a training image",
    "median": "Samples of median distance to the nearest training image",
    "worst": "Samples farthest from every training image",
    "copied": "Samples most like copies, each above its nearest training image",
    "uncovered": "Training images that no sample covers, the least covered first",
    "reconstructions": "Worst reconstructions, below their held-out originals",
}
VALUES = {  # by kind: what a number below a picture is
    "best": "distance",
    "median": "distance",
    "worst": "distance",
    "copied": "nearness; * counts as a copy",
    "uncovered": "distance to the nearest sample, in radii of the image's ball",
    "reconstructions": "PSNR in dB",
}


class Sheet(NamedTuple):
    """A kind of pictures: a PNG with `columns` pictures a row, and the text that belongs to each."""

    kind: str
    path: Path
    columns: int
    texts: Sequence[str]
    note: str

    @property
    def caption(self) -> str:
        """What is seen, and in how many cases, in a sentence."""
        return CAPTIONS[self.kind] + (f": {self.note}." if self.note else ".")


class KeptGallery(NamedTuple):
    """What one evaluation kept: the sheets, and what was scored (extractor, split, samples, seed)."""

    sheets: Sequence[Sheet]
    of: Mapping[str, Any]


def read_gallery(run: Path) -> KeptGallery | None:
    """What a run keeps; None where it keeps none, or a damaged one."""
    folder = run / FOLDER
    try:
        content = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return None
        kept = {one["kind"]: one for one in content["sheets"]}
        sheets = [
            Sheet(
                kind,
                folder / f"{kind}.png",
                int(kept[kind]["columns"]),
                [str(text) for text in kept[kind]["texts"]],
                str(kept[kind]["note"]),
            )
            for kind in CAPTIONS
            if kind in kept and (folder / f"{kind}.png").exists()
        ]
        return KeptGallery(sheets, dict(content["of"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
