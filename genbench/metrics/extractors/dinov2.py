"""DINOv2, Oquab et al. 2023, https://arxiv.org/abs/2304.07193: features for natural images.

Stein et al. 2023, https://arxiv.org/abs/2306.04675, found the Frechet distance in its features closest
to human judgement. As there, images are resized to 224 pixels (Pillow, bicubic), and the feature is the
class token after the last norm. The network has no classes, so that scores of labels are left out.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.errors import UserMistake
from genbench.metrics.contract import GREY_OR_COLOUR, Extractor, Features, MissingWeights
from genbench.metrics.extractors import sha256_of
from genbench.metrics.extractors.resizing import bicubic

URL = "https://dl.fbaipublicfiles.com/dinov2/dinov2_{0}14/dinov2_{0}14_pretrain.pth"
ARCHITECTURES = {  # width, depth, heads
    "vits": (384, 12, 6),
    "vitb": (768, 12, 12),
    "vitl": (1024, 24, 16),
}

PATCH, SIZE = 14, 224  # pixels a side of a patch and of the image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, per channel in [0, 1]

BATCH_ON_CPU = 16  # images at a time, to bound memory


class Block(nn.Module):
    """A transformer block whose two branches have learned scales (LayerScale)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.ls1 = nn.ParameterDict({"gamma": torch.ones(width)})
        self.ls2 = nn.ParameterDict({"gamma": torch.ones(width)})

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then MLP: (N, tokens, width) to the same shape."""
        n, tokens, width = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.ls1["gamma"] * self.attn["proj"](seen)
        hidden = F.gelu(self.mlp["fc1"](self.norm2(x)))
        out: Tensor = x + self.ls2["gamma"] * self.mlp["fc2"](hidden)
        return out


class Network(nn.Module):
    """The vision transformer, its parameters named as in the published files."""

    def __init__(self, width: int, depth: int, heads: int, grid: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.mask_token = nn.Parameter(
            torch.zeros(1, width)
        )  # used in training only; part of the files
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, stride=PATCH)})
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Class tokens (N, width) of normalised images (N, 3, H, W), sides multiples of 14."""
        patches = self.patch_embed["proj"](images)
        positions = self.positions(patches.shape[-1])
        tokens = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], 1) + positions
        for block in self.blocks:
            x = block(x)
        token: Tensor = self.norm(x)[:, 0]
        return token

    def positions(self, grid: int) -> Tensor:
        """Position embeddings for a grid of another size, interpolated as the authors do."""
        own = math.isqrt(self.pos_embed.shape[1] - 1)
        if grid == own:
            return self.pos_embed
        patches = self.pos_embed[:, 1:].view(1, own, own, -1).permute(0, 3, 1, 2)
        scale = (grid + 0.1) / own  # their guard against a grid that is one too small
        patches = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], patches.flatten(2).transpose(1, 2)], 1)


class DINOv2(Extractor):
    """Class tokens of DINOv2; weights are read from `path`, a file as its authors publish it.

    The file's sha256 is written into every card. None is pinned here: give `sha256` to refuse files
    with another one, so that two machines agree.
    """

    def __init__(self, *, architecture: str, path: str | None, sha256: str | None) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise UserMistake(
                f"extractor.architecture={architecture!r} is not one of {', '.join(ARCHITECTURES)}"
            )
        self.name, self.architecture = f"dinov2-{architecture}14", architecture
        self.path = None if path is None else Path(path).expanduser()
        self.expected, self.network = sha256, None
        self.card: dict[str, Any] = {
            "name": self.name,
            "sha256": sha256,
            "layer": "class token after the last norm",
            "feature_dim": ARCHITECTURES[architecture][0],
            "input_size": SIZE,
            "resize": "pil-bicubic-224",
            "channels": "3; grey repeated",
            "value_range": "ImageNet's mean and deviation",
        }

    network: Network | None

    def prepare(self) -> None:
        """Find the weights, check their sha256, load them. Raises UserMistake."""
        if self.network is not None:
            return
        url = URL.format(self.architecture)
        if self.path is None or not self.path.is_file():
            raise MissingWeights(
                f"extractor.path={self.path}, but {self.name} needs the file of its weights",
                f"fetch {url}, and give its place as extractor.path=...",
            )
        found = sha256_of(self.path)
        if self.expected is not None and found != self.expected:
            raise UserMistake(
                f"{self.path} has sha256 {found[:12]}..., not extractor.sha256="
                f"{self.expected[:12]}...: fetch {url} anew, or correct the digest"
            )
        self.card["sha256"] = found
        try:
            self.load(torch.load(self.path, map_location="cpu", weights_only=True))
        except (RuntimeError, KeyError) as error:
            raise UserMistake(f"{self.path} is not {self.name}: {error}") from error

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict as published; its number of positions gives the training grid."""
        width, depth, heads = ARCHITECTURES[self.architecture]
        grid = math.isqrt(state["pos_embed"].shape[1] - 1)
        with torch.device("meta"):  # draws no initial weights from the global generator
            network = Network(width, depth, heads, grid)
        network.load_state_dict(dict(state), assign=True)
        self.network = network
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Features of level indices (N, 1 or 3, H, W); logits (N, 0). Raises ValueError for others."""
        self.begin(pixels, GREY_OR_COLOUR)
        assert self.network is not None
        size = BATCH_ON_CPU if pixels.device.type == "cpu" else max(1, len(pixels))
        with torch.autocast(pixels.device.type, enabled=False):
            found = [
                self.network(self.normalised(part, levels)) for part in torch.split(pixels, size)
            ]
        features = torch.cat(found)
        return Features(features, features.new_empty(len(features), 0))

    def normalised(self, pixels: Tensor, levels: int) -> Tensor:
        """Resize to (N, 3, 224, 224) and normalise by ImageNet's mean and standard deviation."""
        images = bicubic(pixels.float() * (255 / (levels - 1)), SIZE) / 255
        mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        return (images.expand(-1, 3, -1, -1) - mean) / std
