"""Pictures of a model: samples, interpolations, reconstructions."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.data.subsets import chosen
from genbench.models.condition import labels_of
from genbench.models.contract import GenerativeModel, Reconstructs
from genbench.networks.conditional import given

SEED = 2_718  # of the fixed latents: the same ones for every run, so that grids can be compared


@contextmanager
def evaluating(model: GenerativeModel) -> Iterator[None]:
    """Put the model in eval mode without gradients, and back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def draw_samples(
    model: GenerativeModel, num: int, seed: int = SEED, labels: Tensor | None = None
) -> Tensor:
    """Draw images (num, C, H, W) from latents that depend on `seed` alone.

    A model that knows labels gets `labels`, by default some of training images that depend on `seed` too.
    """
    z = model.latents(num, torch.Generator().manual_seed(seed))
    if labels is None and model.condition is not None:
        labels = model.condition.draw(num, seed)
    return _sampled(model, z, labels)


def draw_grid(model: GenerativeModel, num: int, columns: int = 8, seed: int = SEED) -> Tensor:
    """Draw `num` images; of a model that knows labels a row for each of these, with equal latents in a column."""
    if model.condition is None:
        return draw_samples(model, num, seed)
    rows = model.condition.rows()
    z = model.latents(columns, torch.Generator().manual_seed(seed))
    repeated = z.repeat(len(rows), *[1] * (z.ndim - 1))
    return _sampled(model, repeated, rows.repeat_interleave(columns, 0))


def _sampled(model: GenerativeModel, z: Tensor, labels: Tensor | None) -> Tensor:
    with evaluating(model):
        made = [
            model.sample(*(one.to(model.device) for one in part))
            for part in zip(*(torch.split(one, 256) for one in (z, *given(labels))), strict=True)
        ]
    return torch.cat(made)


def draw_interpolations(model: GenerativeModel, rows: int, columns: int, seed: int) -> Tensor:
    """Draw rows of images between two latents each, on the great circle between them (slerp)."""
    ends = model.latents(2 * rows, torch.Generator().manual_seed(seed))
    first, last = ends.flatten(1).chunk(2)
    cosine = torch.nn.functional.cosine_similarity(first, last)
    angle = cosine.clamp(-0.9999, 0.9999).acos()[:, None, None]
    t = torch.linspace(0, 1, columns)[None, :, None]
    z = (((1 - t) * angle).sin() * first[:, None] + (t * angle).sin() * last[:, None]) / angle.sin()
    told = None if model.condition is None else model.condition.draw(rows, seed)  # one for a row
    labels = [None] * rows if told is None else [y.expand(columns, *y.shape) for y in told]
    each = zip(z.view(rows, columns, *ends.shape[1:]), labels, strict=True)
    return torch.cat([_sampled(model, row, own) for row, own in each])


def draw_reconstructions(model: GenerativeModel, data: ImageData, num: int) -> Tensor | None:
    """Draw rows of 8 validation images, each above its reconstruction; None without an encoder.

    The images are the first ones of a fixed permutation: of a folder's first ones all are of one class.
    """
    if not isinstance(model, Reconstructs):
        return None
    numbers = chosen(data, "validation", num)
    images = data.to_images(torch.from_numpy(data.pixels("validation")[numbers])).to(model.device)
    labels = labels_of(model.condition, data, "validation", numbers, model.device)
    with evaluating(model):
        pairs = [torch.split(images, 8), torch.split(model.reconstruct(images, *labels), 8)]
    return torch.cat([row for both in zip(*pairs, strict=True) for row in both])
