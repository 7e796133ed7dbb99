"""Reconstructions by a model with an encoder, against their originals."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.data.subsets import chosen, subset_card
from genbench.losses.variational import reparameterize
from genbench.models.batch_statistics import BATCH_SIZE, BATCHES, SEED, has_batch_norm, recalibrated
from genbench.models.condition import labels_of
from genbench.models.contract import (
    DrawsPosterior,
    GenerativeModel,
    HasBound,
    HasPosterior,
    Reconstructs,
)
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


@contextmanager
def reconstructing(model: GenerativeModel, data: ImageData) -> Iterator[None]:
    """Within: the decoder's BatchNorm has the statistics of reconstructions of training images.

    By those of prior samples a VAE of photographs lost 4 dB. Nothing is done without BatchNorm, or for
    a model without an encoder.
    """
    if not isinstance(model, Reconstructs) or not has_batch_norm(model):
        yield
        return
    with recalibrated(model, _decodes(model, data, model.reconstruct)):
        yield


@contextmanager
def decoding_posterior(model: GenerativeModel, data: ImageData) -> Iterator[None]:
    """Within: the decoder's BatchNorm has the statistics of posterior draws of training images.

    A bound on the likelihood decodes these. By the statistics of prior samples the ELBO of a VAE of
    photographs lost 2 000 of 15 000 nats. A posterior that is all on one code has that code's. Nothing is
    done without BatchNorm, or for a model without a posterior and a bound.
    """
    if not has_batch_norm(model):
        yield
        return
    if not isinstance(model, HasPosterior | DrawsPosterior):
        with reconstructing(model, data) if isinstance(model, HasBound) else nullcontext():
            yield
        return
    draws = torch.Generator().manual_seed(SEED)

    def decode(images: Tensor, *labels: Tensor) -> object:
        noise = torch.randn(len(images), model.latent_dim, generator=draws).to(images.device)
        if isinstance(model, DrawsPosterior):
            return model.sample(model.draw_posterior(images, noise).z)
        return model.sample(reparameterize(*model.posterior(images, *labels), noise), *labels)

    with recalibrated(model, _decodes(model, data, decode)):
        yield


def _decodes(
    model: GenerativeModel, data: ImageData, decode: Callable[..., object]
) -> Iterator[Callable[[], object]]:
    """Calls that decode what the encoder makes of training images, a batch each."""
    numbers = torch.from_numpy(chosen(data, "train", BATCHES * BATCH_SIZE))
    for part in torch.split(numbers, BATCH_SIZE):
        if len(part) > 1:  # a single image has no variance
            pixels = torch.from_numpy(data.pixels("train")[part.numpy()])
            labels = labels_of(model.condition, data, "train", part.numpy(), model.device)
            yield partial(decode, data.to_images(pixels.to(model.device)), *labels)


def encoded_norm_card(model: GenerativeModel, data: ImageData, decoded: str) -> dict[str, Any]:
    """The rule of BatchNorm's statistics for the card of a score: `{"batch_norm": {...}}`; empty without.

    `decoded` is "reconstructions" or "posterior draws".
    """
    if not has_batch_norm(model):
        return {}
    images = subset_card(data, "train", BATCHES * BATCH_SIZE)
    rule = {"rule": f"recalibrated on {decoded}", "batch_size": BATCH_SIZE, "images": images}
    return {"batch_norm": rule}


def validation_psnr(model: GenerativeModel, data: ImageData, count: int) -> float | None:
    """Mean PSNR in dB of `count` validation images, the same ones for every model, or of all there are.

    None for a model without an encoder, and where a reconstruction is NaN or infinite.
    """
    if not isinstance(model, Reconstructs):
        return None
    found = []
    for part in torch.split(torch.from_numpy(chosen(data, "validation", count)), AT_ONCE):
        originals = torch.from_numpy(data.pixels("validation")[part.numpy()]).to(model.device)
        labels = labels_of(model.condition, data, "validation", part.numpy(), model.device)
        with evaluating(model):
            images = model.reconstruct(data.to_images(originals), *labels)
        if not bool(images.isfinite().all()):
            return None
        found.append(psnr(data.to_pixels(images), originals, data.levels).cpu())
    return float(torch.cat(found).mean())
