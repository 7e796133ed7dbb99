"""A small network that reads the factors of a world's pictures: one head for each factor.

It scores what is true of generated pictures (`metrics/factor_scores.py`); it is no feature network for
distances. `factors_training.py` makes its weights.
"""

import torch
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.metrics.contract import Features
from genbench.metrics.extractors.classifier import Classifier

WIDTHS = (24, 48, 64)  # channels of the convolutions

GRID = 4  # positions a side that the dense layer sees

HIDDEN = 128


class Network(nn.Module):
    """Three convolutions and a dense layer: (N, C, S, S) in [0, 1] to features (N, 128) and logits.

    The logits of all heads stand one after the other.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, first, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(GRID),
            nn.Flatten(),
            nn.Linear(third * GRID**2, HIDDEN),
            nn.ReLU(),
        )
        self.heads = nn.Linear(HIDDEN, outputs)

    def forward(self, images: Tensor) -> Features:
        """Activations of the dense layer, and the logits of all heads."""
        features = self.trunk(images * 2 - 1)
        return Features(features, self.heads(features))


class FactorReader(Classifier):
    """See `Classifier`; its card names the factors and their values, and how often each is read wrong."""

    architecture, feature_dim = "factors", HIDDEN
    layer = "dense layer, after ReLU; logits of the values of each factor"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the factors, in the order of the heads."""
        return tuple(factor["name"] for factor in self.described.get("factors", []))

    @property
    def values(self) -> tuple[tuple[str, ...], ...]:
        """Names of the values of each factor."""
        return tuple(tuple(factor["values"]) for factor in self.described.get("factors", []))

    def prepare(self) -> None:
        """Find the weights, check their sha256, load them. Raises UserMistake."""
        super().prepare()
        if not self.names:
            raise UserMistake(f"the card of {self.path} names no factors: train it again")

    @staticmethod
    def build(image_size: int, channels: int, classes: int) -> nn.Module:
        """A `Network`; it takes images of any size, but reads what it was trained on."""
        return Network(channels, classes)

    def heads(self, logits: Tensor) -> list[Tensor]:
        """The logits of each factor, (N, K) each."""
        return list(torch.split(logits, [len(values) for values in self.values], dim=1))

    def read(self, logits: Tensor) -> Tensor:
        """The likeliest value of each factor: (N, F), int64."""
        return torch.stack([head.argmax(1) for head in self.heads(logits)], 1)
