"""Reconstructions by a model with an encoder, against their originals."""

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.data.subsets import chosen
from genbench.models.contract import GenerativeModel, Reconstructs
from genbench.models.drawing import evaluating

AT_ONCE = 64  # images that are reconstructed together


def psnr(pixels: Tensor, originals: Tensor, levels: int) -> Tensor:
    """10 log10(range^2 / mean squared error) of each image, in dB, float64 (N,).

    Of level indices (N, C, H, W), whose range is `levels` - 1. An image without error has that of one
    whose error is one level in one value, so that the mean over images is finite.
    """
    error = (pixels.double() - originals.double()).square().flatten(1).mean(1)
    least = 1 / pixels[0].numel()
    return 10 * ((levels - 1) ** 2 / error.clamp_min(least)).log10()


def validation_psnr(model: GenerativeModel, data: ImageData, count: int) -> float | None:
    """Mean PSNR in dB of `count` validation images, the same ones for every model, or of all there are.

    None for a model without an encoder, and where a reconstruction is NaN or infinite.
    """
    if not isinstance(model, Reconstructs):
        return None
    found = []
    for part in torch.split(torch.from_numpy(chosen(data, "validation", count)), AT_ONCE):
        originals = torch.from_numpy(data.pixels("validation")[part.numpy()]).to(model.device)
        with evaluating(model):
            images = model.reconstruct(data.to_images(originals))
        if not bool(images.isfinite().all()):
            return None
        found.append(psnr(data.to_pixels(images), originals, data.levels).cpu())
    return float(torch.cat(found).mean())
