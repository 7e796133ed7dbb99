"""Uniform noise: a known answer. Every score of a model that has learned anything beats it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.models.contract import GenerativeModel, Move, Player


class Noise(GenerativeModel):
    """Every pixel U(-1, 1); nothing is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = ()

    def observe(self, data: ImageData) -> None:
        """Learn the size of the images, the only thing that it knows of them."""
        self.shape = data.channels, data.image_size, data.image_size
        self.latent_dim = data.channels * data.image_size**2

    def players(self) -> dict[str, Player]:
        """Nobody moves."""
        return {}

    def step(self, images: Tensor) -> Iterator[Move]:
        """No moves: it learns nothing."""
        yield from ()

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw pixels, U(-1, 1)."""
        return torch.rand(n, *self.shape, generator=generator) * 2 - 1

    def sample(self, z: Tensor) -> Tensor:
        """Return the pixels as they were drawn."""
        return z
