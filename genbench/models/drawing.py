"""Pictures of a model: samples, interpolations, reconstructions."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.data.subsets import chosen
from genbench.models.contract import GenerativeModel, Reconstructs

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


def draw_samples(model: GenerativeModel, num: int, seed: int = SEED) -> Tensor:
    """Draw images (num, C, H, W) from latents that depend on `seed` alone."""
    z = model.latents(num, torch.Generator().manual_seed(seed))
    with evaluating(model):
        return torch.cat([model.sample(part.to(model.device)) for part in torch.split(z, 256)])


def draw_interpolations(model: GenerativeModel, rows: int, columns: int, seed: int) -> Tensor:
    """Draw rows of images between two latents each, on the great circle between them (slerp)."""
    ends = model.latents(2 * rows, torch.Generator().manual_seed(seed))
    first, last = ends.flatten(1).chunk(2)
    cosine = torch.nn.functional.cosine_similarity(first, last)
    angle = cosine.clamp(-0.9999, 0.9999).acos()[:, None, None]
    t = torch.linspace(0, 1, columns)[None, :, None]
    z = (((1 - t) * angle).sin() * first[:, None] + (t * angle).sin() * last[:, None]) / angle.sin()
    with evaluating(model):
        return torch.cat(
            [model.sample(row.view(columns, *ends.shape[1:]).to(model.device)) for row in z]
        )


def draw_reconstructions(model: GenerativeModel, data: ImageData, num: int) -> Tensor | None:
    """Draw rows of 8 validation images, each above its reconstruction; None without an encoder.

    The images are the first ones of a fixed permutation: of a folder's first ones all are of one class.
    """
    if not isinstance(model, Reconstructs):
        return None
    pixels = torch.from_numpy(data.pixels("validation")[chosen(data, "validation", num)])
    images = data.to_images(pixels).to(model.device)
    with evaluating(model):
        pairs = [torch.split(images, 8), torch.split(model.reconstruct(images), 8)]
    return torch.cat([row for both in zip(*pairs, strict=True) for row in both])
