"""Learned perceptual distance of two images, Zhang et al. 2018, https://arxiv.org/abs/1801.03924.

Their `alex`, version 0.1: features of AlexNet, compared by the weights that torchmetrics ships. AlexNet's own
weights are torchvision's. They are never fetched unless that is asked for.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS

from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.metrics.extractors import sha256_of

log = logging.getLogger("genbench")

FILE = "alexnet-owt-7be5be79.pth"

URL = f"https://download.pytorch.org/models/{FILE}"

SHA256 = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"

MEGABYTES = 233

LEAST_SIDE = 31  # pixels that AlexNet's pooling leaves something of


class LPIPS:
    """`lpips` of pairs of images, where AlexNet's weights are at hand; without them `network` is None.

    They are looked for at `path`, else in the cache; with `fetch` they are downloaded there. Their sha256
    is checked either way.
    """

    def __init__(self, *, path: str | None = None, fetch: bool = False) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self.fetch = fetch
        self.network: nn.Module | None = None
        self.card: dict[str, Any] = {
            "network": "alex",
            "sha256": SHA256,  # of AlexNet; those of the layers' weights are torchmetrics'
            "linear": "0.1",
            "channels": "3; grey repeated",
            "version": 1,
        }

    def prepare(self, data: ImageData, cache: Path) -> None:
        """Find the weights for these images, or download them, and check them. Raises UserMistake."""
        path = self.path or cache / FILE
        if self.network is not None or not self._reads(data):
            return
        if self.path is None and self.fetch and not path.is_file():
            _download(path)
        if path.is_file():
            check(path)
            self.network = load(path)
        elif self.path is not None:
            raise UserMistake(
                f"evaluation.reconstruction.lpips.path={self.path}: there is no such file"
            )
        else:
            log.info("lpips is left out: there is no %s, and fetch is not set", path)

    def __call__(self, pixels: Tensor, originals: Tensor, levels: int) -> Tensor:
        """Distances (N,) of level indices (N, 1 or 3, H, W) in 0 .. levels - 1."""
        assert self.network is not None
        pair = [(part.float() * (2 / (levels - 1)) - 1) for part in (pixels, originals)]
        found: Tensor = self.network(*(part.expand(-1, 3, -1, -1) for part in pair))
        return found.flatten()

    def _reads(self, data: ImageData) -> bool:
        """Whether AlexNet can read these images."""
        fits = data.image_size >= LEAST_SIDE and data.channels in (1, 3)
        if not fits and (self.path is not None or self.fetch):
            raise UserMistake(
                f"lpips cannot read the images of {data.name} ({data.channels} x {data.image_size} x "
                f"{data.image_size}): it takes 1 or 3 channels and {LEAST_SIDE} pixels a side or more; "
                "leave it out with evaluation.reconstruction.lpips=null"
            )
        return fits


def load(path: Path) -> nn.Module:
    """The network with the weights of a file as torchvision publishes it."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.random.fork_rng([]):  # its initial weights are replaced
        network = _LPIPS(net="alex", pnet_rand=True)
    with torch.no_grad():
        for (
            name,
            value,
        ) in network.net.named_parameters():  # "slice1.0.weight" is "features.0.weight"
            value.copy_(state[f"features.{name.split('.', 1)[1]}"])
    return network.eval()


def check(path: Path) -> None:
    """Raise UserMistake if a file is not torchvision's AlexNet."""
    found = sha256_of(path)
    if found != SHA256:
        raise UserMistake(
            f"{path} ({path.stat().st_size:,} bytes, sha256 {found[:8]}...) is not torchvision's AlexNet "
            f"(sha256 {SHA256[:8]}...): delete it, and fetch {URL}"
        )


def _download(path: Path) -> None:
    log.warning("fetching %s (%d MiB)", URL, MEGABYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # written under another name first, and only kept with the right sha256
        torch.hub.download_url_to_file(URL, str(path), hash_prefix=SHA256, progress=False)
    except (OSError, RuntimeError) as error:
        raise UserMistake(
            f"AlexNet's weights for lpips cannot be fetched ({error}): download {URL} elsewhere and put it "
            f"at {path} or give evaluation.reconstruction.lpips.path=..., or leave fetch away"
        ) from error
