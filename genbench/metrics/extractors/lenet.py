"""A small classifier of one dataset's small images, after LeNet-5: LeCun, Bottou, Bengio, Haffner 1998.

Its penultimate layer gives the features: 64 of them, so that a few thousand images fix a covariance.
`training.py` makes the weights.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.interfaces import Extractor, Features
from genbench.metrics.extractors import SHIPPED, read_card, sha256_of

WIDTH = 64
LARGE = 16  # images of this size and more are halved twice


class Network(nn.Module):
    """Two convolutions, two dense layers: (N, C, S, S) in [0, 1] to features and logits."""

    def __init__(self, image_size: int, channels: int, classes: int) -> None:
        super().__init__()
        halvings = 2 if image_size >= LARGE else 1
        side = image_size >> halvings
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2) if halvings == 2 else nn.Identity(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * side * side, WIDTH),
            nn.ReLU(),
        )
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, images: Tensor) -> Features:
        """Penultimate activations (N, 64) and logits (N, classes)."""
        features = self.trunk(images)
        return Features(features, self.head(features))


class LeNet(Extractor):
    """Shipped weights by name (`lenet-digits-v1`), or a safetensors file with its card beside it.

    Raises UserMistake if the file is not the one that its card describes.
    """

    def __init__(self, weights: str) -> None:
        super().__init__()
        given = Path(weights).expanduser()
        path = given if given.suffix == ".safetensors" else SHIPPED / f"{weights}.safetensors"
        card = _card(path, weights)
        sha256 = sha256_of(path)
        if sha256 != card["sha256"]:
            raise UserMistake(
                f"{path} is not what its card describes (sha256 {sha256[:8]}..., the card says "
                f"{card['sha256'][:8]}...): it was changed or cut short; install genbench again, "
                "or train it again"
            )
        self.name = card["name"]
        self.image_size, self.channels = card["image_size"], card["channels"]
        self.card = {
            "name": self.name,
            "sha256": sha256,
            "layer": "penultimate",
            "dimensions": WIDTH,
            "input": f"{self.channels} x {self.image_size} x {self.image_size} in [0, 1]",
            "resize": None,
        }
        with torch.device("meta"):  # draws no weights, which would move the global generator
            self.network = Network(self.image_size, self.channels, card["classes"])
        self.network.load_state_dict(load_file(path), assign=True)
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Features of level indices (N, C, S, S); raises ValueError for other shapes."""
        expected = (self.channels, self.image_size, self.image_size)
        if tuple(pixels.shape[1:]) != expected:
            raise ValueError(f"{self.name} reads images {expected}, not {tuple(pixels.shape[1:])}")
        features: Features = self.network(pixels.float() / (levels - 1))
        return features


def _card(path: Path, weights: str) -> dict[str, Any]:
    if path.is_file() and path.with_suffix(".json").is_file():
        return read_card(path)
    names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors")))
    raise UserMistake(
        f"extractor.weights={weights} is no extractor that genbench ships ({names}), and there is no "
        "such .safetensors file with its .json beside it"
    )
