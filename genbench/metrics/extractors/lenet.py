"""A small classifier of one dataset's small images, after LeNet-5: LeCun, Bottou, Bengio, Haffner 1998.

The features are its penultimate layer: only 64, so that a few thousand images determine their
covariance. `training.py` makes the weights.
"""

from torch import Tensor, nn

from genbench.metrics.contract import Features
from genbench.metrics.extractors.classifier import Classifier

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


class LeNet(Classifier):
    """See `Classifier`."""

    architecture, feature_dim = "lenet", WIDTH
    layer = "penultimate, after ReLU; logits of the classes"

    @staticmethod
    def build(image_size: int, channels: int, classes: int) -> nn.Module:
        """A `Network` for square images of these sizes."""
        return Network(image_size, channels, classes)
