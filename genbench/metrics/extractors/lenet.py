"""A small classifier of one dataset's small images, after LeNet-5: LeCun, Bottou, Bengio, Haffner 1998.

The features are its penultimate layer: only 64, so that a few thousand images determine their
covariance. `training.py` makes the weights.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.metrics.contract import Extractor, Features
from genbench.metrics.extractors import SHIPPED, read_card, sha256_of

WIDTH = 64  # features

LARGE = 16  # pixels a side from which images are pooled twice


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
    """Shipped weights by name (`lenet-digits-v1`), or a .safetensors file with its card beside it.

    `prepare` raises UserMistake if there is none, or if its sha256 is not that of its card.
    """

    def __init__(self, path: str | None) -> None:
        super().__init__()
        self.path = _locate(path)
        self.name = self.path.stem if self.path else "lenet"
        self.network: Network | None = None
        self.described = _described(self.path)
        self.image_size = int(self.described.get("image_size", 0))
        self.channels = int(self.described.get("channels", 0))
        self.card = {
            "name": self.name,
            "sha256": self.described.get("sha256"),
            "layer": "penultimate, after ReLU; logits of the classes",
            "feature_dim": WIDTH,
            "input_size": self.image_size,
            "resize": None,
            "channels": f"{self.channels}, no other number",
            "value_range": [0, 1],
        }

    def prepare(self) -> None:
        """Find the weights, check their sha256, load them. Raises UserMistake."""
        if self.network is not None:
            return
        path = self.path
        if path is None:
            raise UserMistake(
                "extractor.path is not set: give the file of a classifier, or train one with "
                "genbench extractor train --dataset NAME"
            )
        if not path.is_file() or not self.described:
            names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors")))
            raise UserMistake(
                f"{path} is not there with its card {path.with_suffix('.json').name} beside it: give "
                f"extractor.path=FILE.safetensors, or one of those that genbench ships ({names})"
            )
        sha256 = sha256_of(path)
        if sha256 != self.described["sha256"]:
            raise UserMistake(
                f"{path} is not what its card describes (sha256 {sha256[:8]}..., the card says "
                f"{self.described['sha256'][:8]}...): it was changed or cut short; install genbench "
                "again, or train it again"
            )
        with torch.device("meta"):  # draws no initial weights from the global generator
            network = Network(self.image_size, self.channels, self.described["classes"])
        network.load_state_dict(load_file(path), assign=True)
        self.network = network
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Features (N, 64) and logits of level indices (N, C, S, S). Raises ValueError for other shapes."""
        if self.network is None:
            self.prepare()
            self.to(pixels.device)
        assert self.network is not None
        expected = (self.channels, self.image_size, self.image_size)
        if tuple(pixels.shape[1:]) != expected:
            raise ValueError(f"{self.name} reads images {expected}, not {tuple(pixels.shape[1:])}")
        with torch.autocast(pixels.device.type, enabled=False):
            features: Features = self.network(pixels.float() / (levels - 1))
        return features


def _locate(path: str | None) -> Path | None:
    """The file of weights: as given, or a shipped one by its name."""
    if path is None:
        return None
    given = Path(path).expanduser()
    return given if given.suffix == ".safetensors" else SHIPPED / f"{path}.safetensors"


def _described(path: Path | None) -> dict[str, Any]:
    """The card of the weights; {} if there is none or it is incomplete."""
    try:
        card = read_card(path) if path else {}
    except (OSError, ValueError):
        return {}
    needed = {"sha256", "image_size", "channels", "classes"}
    return card if isinstance(card, dict) and needed <= set(card) else {}
