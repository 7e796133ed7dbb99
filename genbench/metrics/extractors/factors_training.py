"""Trains the network that reads a world's factors.

    genbench extractor train --dataset shapes --architecture factors

On pictures as they are and on pictures with a little blur, noise and less contrast, since it has to read
those of generative models. One thread, one seed: the file is reproducible on the same machine.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.data.contract import Split
from genbench.data.factors import Factors
from genbench.errors import UserMistake
from genbench.metrics.extractors.factors import Network

BATCH = 128

LEARNING_RATE = 3e-3

WEIGHT_DECAY = 1e-3

IMAGES = 180_000  # shown in training, unless `epochs` says otherwise

NOISE = 0.08  # largest standard deviation of the noise, of the range

FADED = 0.7  # least contrast

READ = 1000  # images at a time without gradients


def factors_of(data: Any, split: Split) -> Factors:
    """What is known of a split. Raises UserMistake if nothing is."""
    factors: Factors | None = data.factors(split)
    if factors is None:
        raise UserMistake(
            f"nothing is known of the factors of {data.name}: a reader of factors can be trained on "
            "shapes, on stacked digits, and on pictures with classes"
        )
    return factors


def train(
    pixels: Tensor, levels: int, factors: Factors, epochs: int, draw: np.random.RandomState
) -> Network:
    """Fit a network to level indices (N, C, S, S) and their factors. Call within one thread."""
    network = Network(pixels.shape[1], sum(factors.sizes))
    for parameter in network.parameters():  # He et al. 2015
        values = np.zeros(parameter.shape)
        if parameter.ndim > 1:
            values = draw.standard_normal(parameter.shape) * (2 / parameter[0].numel()) ** 0.5
        parameter.data.copy_(torch.from_numpy(values))
    labels, n = torch.from_numpy(factors.labels), len(pixels)
    batch = min(BATCH, n)
    steps = epochs * (n // batch)
    optimizer = torch.optim.AdamW(
        network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=False
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        order = torch.from_numpy(draw.permutation(n))
        for rows in order[: n // batch * batch].split(batch):  # type: ignore[no-untyped-call]
            images = spoiled(pixels[rows].float() / (levels - 1), draw)
            loss = head_losses(network(images).logits, labels[rows], factors.sizes).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network


def head_losses(logits: Tensor, labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Cross-entropy of each head, (F,)."""
    heads = torch.split(logits, list(sizes), dim=1)
    return torch.stack([F.cross_entropy(head, labels[:, f]) for f, head in enumerate(heads)])


def spoiled(images: Tensor, draw: np.random.RandomState) -> Tensor:
    """Images (N, C, S, S) in [0, 1], of which every other one is blurred, faded and noisy."""
    share, contrast, deviation = (
        torch.from_numpy(draw.rand(len(images), 1, 1, 1)).float() for _ in range(3)
    )
    noise = torch.from_numpy(draw.standard_normal(images.shape)).float()
    dull = F.avg_pool2d(images, 3, 1, padding=1, count_include_pad=False)
    changed = images + share * (dull - images)
    mean = changed.mean((2, 3), keepdim=True)
    changed = mean + (changed - mean) * (1 - (1 - FADED) * contrast) + noise * NOISE * deviation
    half = torch.from_numpy(draw.rand(len(images)) < 0.5)[:, None, None, None]
    return changed.where(half, images)


@torch.no_grad()
def errors(network: nn.Module, data: Any, split: Split) -> dict[str, float]:
    """Share of a split's pictures of which each factor is read wrong, and of which any is (`any`)."""
    factors, pixels = factors_of(data, split), data.pixels(split)
    wrong = []
    for start in range(0, len(pixels), READ):
        part = torch.from_numpy(np.array(pixels[start : start + READ])).float()
        heads = torch.split(network(part / (data.levels - 1)).logits, list(factors.sizes), dim=1)
        found = torch.stack([head.argmax(1) for head in heads], 1).numpy()
        wrong.append(found != factors.labels[start : start + READ])
    every = np.concatenate(wrong)
    rates = {name: float(every[:, f].mean()) for f, name in enumerate(factors.names)}
    return {**rates, "any": float(every.any(1).mean())}


def recipe(epochs: int, seed: int) -> dict[str, Any]:
    """What defines the training, for the card."""
    return {
        "optimizer": "AdamW, cosine to 0",
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "batch_size": BATCH,
        "epochs": epochs,
        "seed": seed,
        "spoiled": {
            "share": 0.5,
            "blur": "up to a mean of 3 x 3",
            "noise": NOISE,
            "contrast": FADED,
        },
        "version": 1,
    }
