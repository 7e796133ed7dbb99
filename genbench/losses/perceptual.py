"""A distance of images in the maps of a fixed network."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.errors import UserMistake

EPSILON = 1e-10  # added to the square of a position's norm


class FeatureNetwork(Protocol):
    """A fixed network with a card, as genbench.metrics.extractors has them."""

    name: str
    card: Mapping[str, Any]  # with sha256 and value_range
    network: nn.Module | None

    def prepare(self) -> None:
        """Read the weights. Raises UserMistake without them."""
        ...


class PerceptualDistance(nn.Module):
    """Squared distance of images in a network's maps, each position's channels at norm 1.

    Summed over channels, averaged over positions, summed over convolutions (rectified): LPIPS (Zhang et al.
    2018, https://arxiv.org/abs/1801.03924, eq. 1) with every learned weight at 1. The network is no part of
    the model: it has no parameters here, and checkpoints go without it. `sha256` is that of its weights: a
    score in the same network would be one in what the model was trained on.
    """

    def __init__(self, extractor: FeatureNetwork) -> None:
        super().__init__()
        extractor.prepare()
        assert extractor.network is not None
        self.name, self.sha256 = extractor.name, str(extractor.card["sha256"])
        self.low, self.high = extractor.card["value_range"]
        self.network = _frozen(extractor.network)
        self._layers = [m for m in self.network.modules() if isinstance(m, nn.Conv2d)]
        if not self._layers:
            raise UserMistake(
                f"the extractor {self.name} of a perceptual loss has no convolutions: choose another one"
            )

    def forward(self, images: Tensor, originals: Tensor) -> Tensor:
        """Distances (N,) of images (N, C, H, W) in [-1, 1], with a gradient to `images`; in float32."""
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                targets = self._maps(originals.float())
            found = self._maps(images.float())
        total = images.new_zeros(len(images), dtype=torch.float32)
        for map_, target in zip(found, targets, strict=True):
            total = total + (map_ - target).square().sum(1).flatten(1).mean(1)
        return total

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Rectified outputs of the convolutions that see these images, channels at norm 1."""
        found: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _layer, _args, made: found.append(made))
            for layer in self._layers
        ]
        scaled = self.low + (images + 1) * (self.high - self.low) / 2
        try:
            self.network(scaled.expand(-1, max(images.shape[1], self._channels), -1, -1))
        finally:
            for hook in hooks:
                hook.remove()
        return [_unit(F.relu(one)) for one in found]

    @property
    def _channels(self) -> int:
        return self._layers[0].in_channels


def _unit(maps: Tensor) -> Tensor:
    """Every position's channels at norm 1; with a finite gradient where all are 0."""
    return maps * (maps.square().sum(1, keepdim=True) + EPSILON).rsqrt()


def _frozen(network: nn.Module) -> nn.Module:
    """The network with all parameters made buffers that no checkpoint holds."""
    network.eval()
    for module in network.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=False)
        for name, buffer in [*module.named_buffers(recurse=False)]:
            module.register_buffer(name, buffer, persistent=False)
    return network
