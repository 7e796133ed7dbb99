"""Pictures that a run leaves behind: grids of images and the curves of its losses."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

SMALLEST = 32  # pixels a side at which an image of a grid can be read


def grid(pixels: Tensor, levels: int, columns: int = 8) -> Image.Image:
    """Lay out level indices (N, C, H, W) in rows of `columns`, small images enlarged."""
    grey = (pixels.cpu().float() * (255 / (levels - 1))).round().to(torch.uint8)
    factor = max(1, SMALLEST // grey.shape[-1])
    grey = grey.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    sheet = make_grid(grey, nrow=columns, padding=2, pad_value=128)
    return Image.fromarray(sheet.permute(1, 2, 0).numpy())


def save_grid(pixels: Tensor, levels: int, path: Path, columns: int = 8) -> Path:
    """Write `grid` as a PNG and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(pixels, levels, columns).save(path)
    return path


def save_curves(history: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> Path:
    """Draw one panel per name from its (images, value) points, and write a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    columns = min(3, max(1, len(history)))
    rows = -(-len(history) // columns) or 1
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for position, (name, points) in enumerate(sorted(history.items()), start=1):
        axes = figure.add_subplot(rows, columns, position)
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("images (steps x batch)", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
