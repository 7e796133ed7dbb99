"""An untrained convolutional network: features for images of any size where there is no trained one.

Naeem et al. 2020, https://arxiv.org/abs/2002.09797, score images unlike ImageNet's in the features of a
network at its random initialisation. Such features see edges, colours, textures and their coarse layout,
not objects: they tell noise, blur, wrong colours and missing modes of appearance from real images, and
know no classes, so that scores of labels are left out.
"""

import hashlib
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.metrics.contract import GREY_OR_COLOUR, Extractor, Features

SEED = 20_201_210

SHA256 = "20d5c9234cd416dffd5f4fefefad2059f8304e04db22c40b274c7887cf2854c5"

WIDTH = 64  # channels of every stage

STAGES = 6  # at most: images of 256 pixels or more are halved so often

GRID = 4  # positions a side whose channels are projected

FEATURES = 128

BATCH_PIXELS = 1 << 18  # pixels at a time, to bound memory


class Network(nn.Module):
    """Convolution, ReLU, mean of 2 x 2, until 4 to 7 pixels a side are left; then a projection.

    The number of stages depends on the image, their weights do not: every size is read by the same
    network.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = [3] + [WIDTH] * STAGES
        self.stages = nn.ModuleList(
            nn.Conv2d(inputs, WIDTH, 3, padding=1, bias=False) for inputs in channels[:-1]
        )
        self.projection = nn.Linear(WIDTH * GRID**2, FEATURES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] to features (N, 128)."""
        x, halvings = images, max(0, int(math.log2(min(images.shape[2:]) / GRID)))
        for number, stage in enumerate(self.stages[: max(1, halvings)]):
            x = torch.relu(stage(x))
            if number < halvings:
                x = F.avg_pool2d(x, 2)
        features: Tensor = self.projection(F.adaptive_avg_pool2d(x, GRID).flatten(1))
        return features


class RandomConv(Extractor):
    """The untrained network whose weights follow from a fixed seed, the same bits on every machine.

    They are uniform with the variance of He et al. 2015, https://arxiv.org/abs/1502.01852, from numpy's
    `RandomState`, whose draws are frozen (NEP 19); `prepare` checks their sha256. Grey images are
    repeated in three channels.
    """

    name = "random-conv-v1"
    remark = (
        "an untrained network, which sees colours, textures and layout, not objects "
        "(extractor=inception-2015 gives FID)"
    )

    def __init__(self) -> None:
        super().__init__()
        self.network: Network | None = None
        self.card: dict[str, Any] = {
            "name": self.name,
            "sha256": SHA256,
            "layer": f"random projection of {GRID} x {GRID} positions after the last stage",
            "feature_dim": FEATURES,
            "input_size": "any",
            "resize": None,
            "channels": "3; grey repeated",
            "value_range": [-1, 1],
        }

    def prepare(self) -> None:
        """Draw the weights and check their sha256. Raises UserMistake if they are others."""
        if self.network is not None:
            return
        weights = draw_weights()
        found = sha256_of_weights(weights)
        if found != SHA256:
            raise UserMistake(
                f"the weights of {self.name} have sha256 {found[:8]}... here, not {SHA256[:8]}...: "
                f"numpy {np.__version__} draws other numbers, so choose another extractor=... or "
                "install the tested version"
            )
        with torch.device("meta"):  # draws no initial weights from the global generator
            network = Network()
        network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, assign=True)
        self.network = network.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Features (N, 128) of level indices (N, 1 or 3, H, W) of any size; logits (N, 0).

        Raises ValueError for other numbers of channels.
        """
        self.begin(pixels, GREY_OR_COLOUR)
        size = max(1, BATCH_PIXELS // (pixels.shape[2] * pixels.shape[3]))
        with torch.autocast(pixels.device.type, enabled=False):
            found = [self._read(part, levels) for part in torch.split(pixels, size)]
        features = torch.cat(found)
        return Features(features, features.new_empty(len(features), 0))

    def _read(self, pixels: Tensor, levels: int) -> Tensor:
        assert self.network is not None
        images = pixels.float() * (2 / (levels - 1)) - 1
        found: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return found


def draw_weights() -> dict[str, np.ndarray]:
    """Uniform weights of mean 0, variance 2 / inputs (projection 1 / inputs): float32 by name.

    Products of drawn integers and one factor, so that no machine rounds them differently.
    """
    draw, weights = np.random.RandomState(SEED), {}
    with torch.device("meta"):
        network = Network()
    for name, parameter in network.named_parameters():
        gain = 1 if name.startswith("projection") else 2
        bound = np.float32(math.sqrt(3 * gain / parameter[0].numel()))
        whole = draw.randint(-(2**23), 2**23, tuple(parameter.shape)).astype(np.float32)
        weights[name] = whole * (bound * np.float32(2**-23))
    return weights


def sha256_of_weights(weights: dict[str, np.ndarray]) -> str:
    """sha256 of the little-endian float32 values, in order."""
    digest = hashlib.sha256()
    for values in weights.values():
        digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()
