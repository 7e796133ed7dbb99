"""Pictures that a run leaves behind: grids of images and the curves of its losses."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from genbench.data.contract import ImageData
from genbench.models.batch_statistics import recalibrated
from genbench.models.contract import GenerativeModel
from genbench.models.drawing import draw_grid
from genbench.priors.fitting import FittedPrior, drawing_from
from genbench.runs.priors import grid_name

SMALLEST = 32  # pixels a side at which an image of a grid can be read
PANEL = (4.0, 2.6)  # width and height of a panel of curves, inches
MARGINS = (0.6, 0.15, 0.5, 0.3)  # left, right, below and above its axes, inches


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
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows))
    FigureCanvasAgg(figure)
    for position, (name, points) in enumerate(sorted(history.items())):
        axes = figure.add_axes(_box(*divmod(position, columns), rows, columns))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))  # labels that the margin holds
        axes.yaxis.get_offset_text().set_fontsize(7)
        axes.tick_params(labelsize=8)
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(name, fontsize=9, y=1.0)
        axes.set_xlabel("images (steps x batch)", fontsize=8)
        axes.xaxis.set_label_coords(0.5, -0.16)
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _box(row: int, column: int, rows: int, columns: int) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a panel's axes as parts of the figure.

    Margins are fixed: to measure every label (matplotlib's constrained layout) would double the time.
    """
    (width, height), (left, right, bottom, top) = PANEL, MARGINS
    return (
        (column + left / width) / columns,
        (rows - 1 - row + bottom / height) / rows,
        (1 - (left + right) / width) / columns,
        (1 - (bottom + top) / height) / rows,
    )


def draw_grids(
    fitted: Sequence[FittedPrior], model: GenerativeModel, data: ImageData, run: Path
) -> None:
    """Write samples of the final weights under each prior into the run's folder samples/."""
    for prior in fitted:
        with drawing_from(model, prior), recalibrated(model):
            images = draw_grid(model, 64)
        save_grid(data.to_pixels(images), data.levels, run / "samples" / grid_name(prior.protocol))
