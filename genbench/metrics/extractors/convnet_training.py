"""Trains the residual classifier of small photographs, on a GPU in less than a minute.

All images lie on the device, where they are cropped and mirrored by one gather a batch. What is drawn
(weights, order, crops) comes from numpy by the seed, so that it is the same on every machine; sums are
rounded by each device in its own way.

One-cycle rate: Smith and Topin 2018, https://arxiv.org/abs/1708.07120. Label smoothing: Szegedy et al.
2016, https://arxiv.org/abs/1512.00567. Last norm of a block at 0: Goyal et al. 2017,
https://arxiv.org/abs/1706.02677.
"""

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.metrics.extractors.convnet import SMALLEST, Block, Network, folded

log = logging.getLogger("genbench")

BATCH = 512

LEARNING_RATE = 0.4  # at the peak, for whole batches; smaller ones get a proportional part

WEIGHT_DECAY = 5e-4  # of convolutions and the classifier, not of norms and biases

MOMENTUM = 0.9  # Nesterov's

WARM_UP = 0.2  # fraction of the steps in which the rate rises

SMOOTHING = 0.1  # of the labels

SHIFT = 8  # images are shifted by up to an eighth of their side

IMAGES = 1_800_000  # shown in training, unless EPOCHS passes are more

EPOCHS = 10

Draw = np.random.RandomState


def train(
    pixels: Tensor,
    labels: Tensor,
    classes: int,
    *,
    levels: int,
    epochs: int,
    flip: bool,
    device: torch.device,
    seed: int,
    half: bool,
) -> Network:
    """Fit a network to level indices (N, C, S, S) uint8 with classes (N,); folded, on the CPU.

    `flip` mirrors half of the images; `half` computes in bfloat16. Raises UserMistake for images below
    8 pixels.
    """
    if pixels.shape[-1] < SMALLEST:
        raise UserMistake(
            f"a convnet reads images of {SMALLEST} pixels a side or more, not {pixels.shape[-1]}: "
            "train --architecture lenet"
        )
    draw = Draw(seed)
    network = Network(pixels.shape[1], classes, norm=True)
    _initialise(network, draw)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = Shifted(pixels, levels, flip, device), labels.to(device)
    n, batch = len(pixels), min(BATCH, len(pixels))
    steps = epochs * (n // batch)
    optimizer = _optimizer(network, batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        LEARNING_RATE * batch / BATCH,
        total_steps=steps,
        pct_start=WARM_UP,
        cycle_momentum=False,
    )
    began, network = time.perf_counter(), network.train()
    for epoch in range(epochs):
        for shown, own in images.epoch(draw, batch):
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                logits = network(shown).logits
            loss = F.cross_entropy(logits.float(), labels[own], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        if (epoch + 1) % max(1, epochs // 10) == 0:
            seconds = time.perf_counter() - began
            log.warning(
                "epoch %d of %d: loss %.3f, %.0f s", epoch + 1, epochs, loss.item(), seconds
            )
    return folded(network.eval())


def recipe(epochs: int, flip: bool, seed: int, half: bool) -> dict[str, Any]:
    """What the card says of the training."""
    return {
        "optimizer": "SGD with Nesterov momentum, one cycle",
        "learning_rate": LEARNING_RATE,
        "momentum": MOMENTUM,
        "weight_decay": WEIGHT_DECAY,
        "warm_up": WARM_UP,
        "label_smoothing": SMOOTHING,
        "batch_size": BATCH,
        "augmentation": f"shift by up to 1/{SHIFT} of the side, reflected"
        + (", mirrored" if flip else ""),
        "epochs": epochs,
        "seed": seed,
        "precision": "bf16" if half else "float32",
        "stored": "float16, norms folded",
        "version": 1,
    }


class Shifted:
    """Images on a device, of which batches are shifted, and mirrored, at random."""

    def __init__(self, pixels: Tensor, levels: int, flip: bool, device: torch.device) -> None:
        self.levels, self.flip, self.device = levels, flip, device
        self.reach = pixels.shape[-1] // SHIFT
        self.span = torch.arange(pixels.shape[-1], device=device)
        sides = [(0, 0), (self.reach, self.reach), (self.reach, self.reach), (0, 0)]
        padded = np.pad(pixels.permute(0, 2, 3, 1).numpy(), sides, mode="reflect")
        self.padded = torch.from_numpy(padded).to(device)  # (N, S + 2 reach, S + 2 reach, C) uint8

    def epoch(self, draw: Draw, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole batches in a new order: images in [0, 1], channels last, and their numbers.

        What is drawn goes to the device once, so that the host can run ahead of it.
        """
        n = len(self.padded) // batch * batch
        drawn = [
            draw.permutation(len(self.padded))[:n],
            *draw.randint(0, 2 * self.reach + 1, (2, n)),
            draw.randint(0, 2, n) * self.flip,
        ]
        for part in torch.split(torch.from_numpy(np.stack(drawn)).to(self.device), batch, dim=1):
            yield self.cut(*part), part[0]

    def cut(self, rows: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
        """Windows of images by the numbers of their first row and column, each argument (B,)."""
        y = top[:, None] + self.span
        x = left[:, None] + torch.where(mirrored[:, None] > 0, self.span.flip(0), self.span)
        pixels = self.padded[rows[:, None, None], y[:, :, None], x[:, None, :]]
        return pixels.permute(0, 3, 1, 2).float() / (self.levels - 1)


def _initialise(network: nn.Module, draw: Draw) -> None:
    """He et al. 2015: N(0, 2 / inputs); the classifier N(0, 1 / inputs); norms 1, the last of a block 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            gain = 2 if isinstance(module, nn.Conv2d) else 1
            shape = tuple(module.weight.shape)
            values = draw.standard_normal(shape) * (gain / module.weight[0].numel()) ** 0.5
            module.weight.data.copy_(torch.from_numpy(values))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Block):
            nn.init.zeros_(list(module.second.parameters())[1])


def _optimizer(network: nn.Module, batch: int) -> torch.optim.Optimizer:
    parts = list(network.parameters())
    return torch.optim.SGD(
        [
            {"params": [p for p in parts if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parts if p.ndim == 1], "weight_decay": 0.0},
        ],
        LEARNING_RATE * batch / BATCH,
        momentum=MOMENTUM,
        nesterov=True,
    )
