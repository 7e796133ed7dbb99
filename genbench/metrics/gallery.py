"""Pictures that explain the scores of an evaluation, from what its metrics found for each image.

Best, median and worst samples by the distance of their features to the nearest training image's; the
samples that `copy_rate` finds most like copies; training images outside of `coverage`; reconstructions of
the lowest PSNR. Nothing is computed anew but the pictures themselves.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.metrics.contract import FeatureMetric
from genbench.metrics.copy_rate import CopyRate
from genbench.metrics.prdc import NeighbourScores
from genbench.metrics.sampling import GeneratedSet
from genbench.models.contract import GenerativeModel
from genbench.runs.files import atomic_write, write_json
from genbench.runs.gallery import CARD, FOLDER, VERSION

MANY, FEW, COLUMNS = 16, 8, 8  # pictures of a kind, pairs of a kind, pictures a row
SMALLEST, LARGEST = 32, 64  # pixels a side; others are made larger or smaller
LINE, GREY = 2, 128  # between pictures


class WorstReconstructions:
    """The pairs of the lowest PSNR among all that it is offered, a batch at a time."""

    def __init__(self) -> None:
        self.psnr = torch.empty(0, dtype=torch.float64)
        self.pairs: Tensor | None = None  # originals and reconstructions, (n, 2, C, H, W)

    def offer(self, rebuilt: Tensor, originals: Tensor, psnr: Tensor) -> None:
        """Keep the worst so far; level indices (N, C, H, W) and dB (N,)."""
        own = psnr.double().cpu()
        near = own.argsort()[:FEW]
        where = near.to(rebuilt.device)
        pairs = torch.stack([originals[where], rebuilt[where]], dim=1).cpu()
        values = torch.cat([self.psnr, own[near]])
        both = pairs if self.pairs is None else torch.cat([self.pairs, pairs])
        order = values.argsort()[:FEW]
        self.psnr, self.pairs = values[order], both[order]


class GalleryRequest(NamedTuple):
    """What pictures are drawn from: the model, its data, and metrics that have been called on its samples."""

    model: GenerativeModel
    data: ImageData
    generated: GeneratedSet
    metrics: Sequence[FeatureMetric]
    worst: WorstReconstructions
    of: Mapping[str, Any]  # what was scored, for the card


class _Sheet(NamedTuple):
    kind: str
    pixels: Tensor  # level indices, (N, C, H, W)
    texts: Sequence[str]
    note: str = ""


def keep_gallery(run: Path, request: GalleryRequest) -> None:
    """Write a sheet for each kind of which there are pictures, and then the card. Others are removed."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    sheets = [*_of_samples(request), *_uncovered(request), *_reconstructions(request)]
    for old in folder.glob("*.png"):
        if old.stem not in {sheet.kind for sheet in sheets}:
            old.unlink()
    for sheet in sheets:
        with atomic_write(folder / f"{sheet.kind}.png", sync=False) as temporary:
            _picture(sheet.pixels, request.data.levels).save(temporary, "PNG")
    kept = [
        {"kind": one.kind, "columns": COLUMNS, "texts": list(one.texts), "note": one.note}
        for one in sheets
    ]
    write_json(folder / CARD, {"version": VERSION, "of": dict(request.of), "sheets": kept})


def _of_samples(request: GalleryRequest) -> list[_Sheet]:
    """Samples by distance, and the most copied ones; none where `copy_rate` was not computed."""
    metric = next((m for m in request.metrics if isinstance(m, CopyRate)), None)
    if metric is None or metric.found is None:
        return []
    made, copies, bound = metric.found
    near = made.within(bound).cpu()
    distance, nearness, place = (part.cpu() for part in made)
    order = distance.argsort()
    middle = max(0, len(order) // 2 - MANY // 2)
    chosen = {
        "best": order[:MANY],
        "median": order[middle : middle + MANY],
        "worst": order.flip(0)[:MANY],
    }
    sheets = [
        _Sheet(kind, _drawn(request, which), [f"{distance[i]:.3g}" for i in which.tolist()])
        for kind, which in chosen.items()
    ]
    ranked = near.argsort(descending=True, stable=True)[:FEW]
    real = _real(request.data, place[ranked])
    pairs = torch.cat([_drawn(request, ranked), real])
    marks = ["*" if bool(copies[i]) else "" for i in ranked.tolist()]
    texts = [
        f"{min(float(nearness[i]), 999.0):.3g}{m}"
        for i, m in zip(ranked.tolist(), marks, strict=True)
    ]
    note = f"{int(copies.sum()):,} of {len(copies):,} count as copies"
    return [*sheets, _Sheet("copied", pairs, texts, note)]


def _uncovered(request: GalleryRequest) -> list[_Sheet]:
    """Training images outside of coverage, the least covered first."""
    metric = next((m for m in request.metrics if isinstance(m, NeighbourScores)), None)
    if metric is None or metric.found is None:
        return []
    numbers, reach = (part.cpu() for part in metric.found)
    outside = int((reach > 1).sum())
    worst = reach.argsort(descending=True)[: min(MANY, outside)]
    note = f"{outside:,} of {len(reach):,}"
    if not outside:
        return []
    texts = [f"{min(float(reach[i]), 999.0) ** 0.5:.3g}" for i in worst.tolist()]
    return [_Sheet("uncovered", _real(request.data, numbers[worst]), texts, note)]


def _reconstructions(request: GalleryRequest) -> list[_Sheet]:
    worst = request.worst
    if worst.pairs is None:
        return []
    pixels = torch.cat([worst.pairs[:, 0], worst.pairs[:, 1]])
    return [_Sheet("reconstructions", pixels, [f"{value:.3g}" for value in worst.psnr.tolist()])]


def _drawn(request: GalleryRequest, numbers: Tensor) -> Tensor:
    """Samples of the set by their numbers, drawn again."""
    return request.generated.pixels_of(request.model, request.data, numbers)


def _real(data: ImageData, numbers: Tensor) -> Tensor:
    """Training images by their numbers; a memory-mapped split is read in order."""
    where, back = np.unique(numbers.numpy(), return_inverse=True)
    pixels: NDArray[np.uint8] = data.pixels("train")[where]
    return torch.from_numpy(pixels[back])


def _picture(pixels: Tensor, levels: int) -> Image.Image:
    """Pictures in rows, grey lines between them; grey, or the first three channels as colours."""
    grey = (pixels.float() * (255 / (levels - 1))).round().byte().movedim(1, -1).numpy()
    grey = np.repeat(grey[..., :1], 3, axis=-1) if grey.shape[-1] < 3 else grey[..., :3]
    grey = grey.repeat(factor := max(1, SMALLEST // grey.shape[1]), 1).repeat(factor, 2)
    side = min(LARGEST, grey.shape[1])
    rows, step = -(-len(grey) // COLUMNS), side + LINE
    sheet = Image.new("RGB", (COLUMNS * step + LINE, rows * step + LINE), (GREY, GREY, GREY))
    for number, one in enumerate(grey):
        tile = Image.fromarray(np.ascontiguousarray(one))
        tile = tile.resize((side, side), Image.Resampling.BOX) if side < len(one) else tile
        row, column = divmod(number, COLUMNS)
        sheet.paste(tile, (LINE + column * step, LINE + row * step))
    return sheet
