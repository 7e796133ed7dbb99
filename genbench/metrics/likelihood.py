"""How well a model predicts images: the evidence lower bound and its halves, at beta = 1.

For models that have a likelihood; the others have no such number, and get none. Its name carries the
likelihood's tag: numbers under different tags measure different things.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genbench.interfaces import GenerativeModel, HasLikelihood, ImageData, Split
from genbench.score import Score

SPLIT: Split = "test"


def measure(
    model: HasLikelihood, data: ImageData, noise: Tensor, batch_size: int, device: torch.device
) -> tuple[float, float]:
    """Mean rate and distortion over the held-out images, in nats per image.

    `noise` (N, latent_dim) is one draw from the posterior for each image.
    """
    pixels = data.pixels(SPLIT)
    rate = distortion = 0.0
    for start in range(0, len(pixels), batch_size):
        which = slice(start, start + batch_size)
        images = data.to_images(torch.from_numpy(pixels[which].copy()).to(device))
        bound = model.elbo(images, noise[which].to(device))
        rate += float(bound.rate.double().sum())
        distortion += float(bound.distortion.double().sum())
    return rate / len(pixels), distortion / len(pixels)


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """Turn -log P of a discrete image, in nats, into bits per pixel and channel."""
    return nats / (dimensions * math.log(2))


def scores(
    model: GenerativeModel, data: ImageData, seed: int, batch_size: int, device: torch.device
) -> list[Score]:
    """Score a model that has a likelihood on held-out images; nothing for any other."""
    if not isinstance(model, HasLikelihood):
        return []
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(data.pixels(SPLIT)), model.latent_dim, generator=generator)
    rate, distortion = measure(model, data, noise, batch_size, device)
    tag = model.likelihood.tag
    card = {
        "estimator": {"beta": 1, "posterior_draws": 1, "version": 1},
        "likelihood": tag,
        "heldout": data.card(SPLIT),
        "seed": seed,
        "weights": "raw",
    }
    values: list[tuple[str, float, str, bool | None]] = [
        ("elbo", -(rate + distortion), "nats", True),
        ("rate", rate, "nats", None),
        ("distortion", distortion, "nats", False),
    ]
    if model.likelihood.discrete:
        dimensions = data.channels * data.image_size**2
        bits = bits_per_dimension(rate + distortion, dimensions)
        values.append(("bits_per_dim", bits, "bits", False))
    return [
        _score(f"{name}_{tag}", value, unit, better, {"quantity": name, **card})
        for name, value, unit, better in values
    ]


def _score(
    name: str, value: float, unit: str, better: bool | None, card: Mapping[str, Any]
) -> Score:
    if math.isfinite(value):
        return Score(name, value, unit, better, card)
    return Score(name, None, unit, better, card, status="nonfinite")
