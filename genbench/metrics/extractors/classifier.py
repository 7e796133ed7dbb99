"""Feature networks that are small classifiers: weights in a file whose card beside it describes them."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.metrics.contract import Extractor, Features, MissingWeights
from genbench.metrics.extractors import SHIPPED, read_card, sha256_of


class Classifier(Extractor):
    """Shipped weights by name (`lenet-digits-v1`), or a .safetensors file with its card beside it.

    Weights may be stored in half precision; they are computed with in float32. `prepare` raises
    UserMistake if there is no such file, if its sha256 is not that of its card, or if it holds another
    architecture.
    """

    architecture: ClassVar[str]  # name of the config, and of the cards that it reads
    layer: ClassVar[str]
    feature_dim: ClassVar[int]

    def __init__(self, path: str | None) -> None:
        super().__init__()
        self.path = _locate(path)
        self.name = self.path.stem if self.path else self.architecture
        self.network: nn.Module | None = None
        self.described = _described(self.path)
        self.image_size = int(self.described.get("image_size", 0))
        self.channels = int(self.described.get("channels", 0))
        self.card = {
            "name": self.name,
            "sha256": self.described.get("sha256"),
            "layer": self.layer,
            "feature_dim": self.feature_dim,
            "input_size": self.image_size,
            "resize": None,
            "channels": f"{self.channels}, no other number",
            "value_range": [0, 1],
        }

    @staticmethod
    @abstractmethod
    def build(image_size: int, channels: int, classes: int) -> nn.Module:
        """The network: images (N, C, S, S) in [0, 1] to Features."""

    def prepare(self) -> None:
        """Find the weights, check their sha256, load them. Raises UserMistake."""
        if self.network is not None:
            return
        path = self.path
        if path is None:
            raise MissingWeights(
                "extractor.path is not set",
                "give the file of a classifier, or train one with genbench extractor train "
                f"--dataset NAME --architecture {self.architecture}",
            )
        if not path.is_file() or not self.described:
            names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors")))
            raise MissingWeights(
                f"{path} is not there with its card {path.with_suffix('.json').name} beside it",
                f"give extractor.path=FILE.safetensors, or one of those that genbench ships ({names})",
            )
        sha256 = sha256_of(path)
        if sha256 != self.described["sha256"]:
            raise UserMistake(
                f"{path} is not what its card describes (sha256 {sha256[:8]}..., the card says "
                f"{self.described['sha256'][:8]}...): it was changed or cut short; install genbench "
                "again, or train it again"
            )
        found = self.described.get("architecture", "lenet")  # cards without it are of a lenet
        if found != self.architecture:
            raise UserMistake(
                f"{path} holds a {found}, not a {self.architecture}: choose extractor={found}"
            )
        with torch.device("meta"):  # draws no initial weights from the global generator
            network = self.build(self.image_size, self.channels, self.described["classes"])
        weights = {key: value.float() for key, value in load_file(path).items()}
        network.load_state_dict(weights, assign=True)
        self.network = network
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Features (N, D) and logits of level indices (N, C, S, S). Raises ValueError for other shapes."""
        self.begin(pixels, [self.channels])
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
