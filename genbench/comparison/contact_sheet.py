"""Sample grids of several runs side by side: what their numbers look like. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

KINDS = ("samples", "interpolations", "reconstructions")
GAP, HEADING, LINE = 16, 28, 19  # pixels


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
    font = ImageFont.load_default(size=15)
    titles = [wrapped(label, width, font) for label, _ in columns]
    title = HEADING + LINE * (max(map(len, titles)) - 1)
    total = sum(height + HEADING for height in shown.values()) + title
    sheet = Image.new("RGB", (len(columns) * (width + GAP) + GAP, total + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (lines, (_, grids)) in enumerate(zip(titles, columns, strict=True)):
        left, top = GAP + place * (width + GAP), title
        draw.multiline_text((left, 6), "\n".join(lines), fill="black", font=font)
        for kind, height in shown.items():
            text = kind if kind in grids else f"no {kind}: it has no encoder"
            draw.text((left, top + 4), text, fill="grey", font=font)
            if kind in grids:
                sheet.paste(grids[kind].convert("RGB"), (left, top + HEADING - 2))
            top += height + HEADING
    return sheet


def wrapped(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces, or within a word that is wider."""
    lines = [""]
    for word in text.split(" "):
        line = f"{lines[-1]} {word}".strip()
        if font.getlength(line) <= width:
            lines[-1] = line
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
