"""A discriminator that judges patches."""

import torch
from torch import Tensor, nn

from genbench.networks.heads import Trunk


class PatchDiscriminator(nn.Module):
    """Images to a logit for each position of the trunk's last stage: Isola et al. 2017, section 3.2.2.

    https://arxiv.org/abs/1611.07004. How large a patch is, the trunk's stages say. A trunk whose last stage
    has no positions, as a fully connected one, has one patch: the image.
    """

    def __init__(self, trunk: Trunk, image_size: int, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        with torch.no_grad():
            maps = trunk.features(torch.zeros(1, channels, image_size, image_size))[-1]
        self.head = trunk.head(1) if maps.dim() == 2 else nn.Linear(maps.shape[1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits (N, P) of P patches in float32, high for real."""
        maps = self.trunk.features(images)[-1]
        positions = maps.flatten(2).transpose(1, 2) if maps.dim() > 2 else maps[:, None]
        logits: Tensor = self.head(positions).float().squeeze(2)
        return logits
