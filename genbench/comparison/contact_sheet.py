"""Sample grids of several runs side by side: what their numbers look like. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

KINDS = ("samples", "interpolations", "reconstructions")
GAP, HEADING = 16, 28


def last_grids(run: Path) -> dict[str, Path]:
    """The grids of a run's final weights, by kind; kinds that the model cannot draw are absent."""
    found = {}
    for kind in KINDS:
        grids = sorted((run / "samples").glob(f"{kind}-[0-9]*.png"))
        if grids:
            found[kind] = grids[-1]
    return found


def contact_sheet(runs: Sequence[tuple[str, Path]]) -> Image.Image:
    """Lay out (label, run) in columns and kinds of grid in rows."""
    columns = [
        (label, {k: Image.open(p) for k, p in last_grids(run).items()}) for label, run in runs
    ]
    sizes = [grid.size for _, grids in columns for grid in grids.values()]
    if not sizes:
        return Image.new("RGB", (1, 1), "white")
    width = max(size[0] for size in sizes)
    heights = {
        kind: max((grids[kind].size[1] for _, grids in columns if kind in grids), default=0)
        for kind in KINDS
    }
    shown = {kind: height for kind, height in heights.items() if height}
    total = sum(height + HEADING for height in shown.values()) + HEADING
    sheet = Image.new("RGB", (len(columns) * (width + GAP) + GAP, total + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for place, (label, grids) in enumerate(columns):
        left, top = GAP + place * (width + GAP), 6
        draw.text((left, top), label, fill="black", font=font)
        top += HEADING - 6
        for kind, height in shown.items():
            text = kind if kind in grids else f"no {kind}: it has no encoder"
            draw.text((left, top + 4), text, fill="grey", font=font)
            if kind in grids:
                sheet.paste(grids[kind].convert("RGB"), (left, top + HEADING - 2))
            top += height + HEADING
    return sheet
