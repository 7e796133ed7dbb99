"""Wasserstein autoencoder with MMD, Tolstikhin et al. 2018, https://arxiv.org/abs/1711.01558, algorithm 2.

One player descends c(x, G(E(x))) + weight * MMD(codes of the batch, as many draws of the prior), for a
deterministic encoder and the squared error c, summed over pixels. There is no likelihood and no posterior.

Departures: the batch is the arena's, where the authors have 100; no noise is added to the input, and the
encoder is not trained beforehand. Their weight of 10 stands beside 0.05 c on MNIST's 784 pixels in [0, 1]. On
[-1, 1], as here, c is four times as large, so that it is 800 beside c; for the 64 pixels of digits, with as much
for each of them, 65.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from genbench.losses.discrepancy import maximum_mean_discrepancy
from genbench.models.contract import GenerativeModel, MakeOptimizer, Move, Player
from genbench.networks.conditional import given
from genbench.ranges import number


class WAEMMD(GenerativeModel):
    """One player: encoder and decoder."""

    counted = "autoencoder"
    compares_images = True  # the discrepancy is one of all codes of a batch

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        latent_dim: int,
        weight: float,
        optimizer: MakeOptimizer,
    ) -> None:
        super().__init__()
        number("model.weight", weight)
        self.decoder, self.encoder, self.latent_dim = decoder, encoder, latent_dim
        self.weight, self.optimizer = weight, optimizer

    def players(self) -> dict[str, Player]:
        """The autoencoder alone."""
        return {"autoencoder": Player([self.decoder, self.encoder], self.optimizer)}

    def step(self, images: Tensor, labels: Tensor | None = None) -> Iterator[Move]:
        """Descend cost + weight * discrepancy."""
        yield Move("autoencoder", lambda: self.loss(images, *given(labels)))

    def loss(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean squared error of images, summed over pixels, and the discrepancy of their codes."""
        codes = self.encode(images, *given(labels))
        cost = (images - self.sample(codes, *given(labels))).square().flatten(1).sum(1).mean()
        discrepancy = maximum_mean_discrepancy(codes, self.noise(len(images), self.latent_dim))
        self.track("train/cost", cost)
        self.track("train/discrepancy", discrepancy)
        return cost + self.weight * discrepancy

    def sample(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decode latents; tanh bounds the image."""
        return torch.tanh(self.decoder(z, *given(labels)))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The code of each image."""
        codes: Tensor = self.encoder(images, *given(labels))
        return codes

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Encode and decode."""
        return self.sample(self.encode(images, *given(labels)), *given(labels))

    def objective(self) -> str:
        """Cost and discrepancy with their weight."""
        return f"squared error + {self.weight:g} * MMD of the codes to the prior"
