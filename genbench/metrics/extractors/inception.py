"""Features of the Frechet Inception Distance: TensorFlow's Inception of 2015-12-05.

Channels-last memory format and folded batch normalisation save a third of the time.
"""

import logging
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from genbench.data.cache import locked
from genbench.errors import UserMistake
from genbench.metrics.contract import GREY_OR_COLOUR, Extractor, Features, MissingWeights
from genbench.metrics.extractors import INCEPTION_BYTES, INCEPTION_FILE, INCEPTION_SHA256, sha256_of
from genbench.metrics.extractors.inception_network import Network, check_folded, folded
from genbench.metrics.extractors.resizing import RESIZES, SIZE
from genbench.runs.files import atomic_write

log = logging.getLogger("genbench")

URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"

SILENCE_SECONDS = 30  # without a byte, after which a download is given up

BATCH_ON_CPU = 16  # images whose activations fit into the processor's cache

Resize = Literal["tf1-bilinear", "pil-bicubic"]


class Inception(Extractor):
    """Features of the 2015 Inception, the only ones whose Frechet distance is called FID.

    `resize`: tf1-bilinear as in Heusel et al. 2017, or pil-bicubic as in clean-fid. Weights are read
    from `path`, or fetched into `<cache>/extractors` on first use; either way their sha256 is
    checked. Grey images are repeated in three channels.
    """

    def __init__(self, *, resize: Resize, path: str | None, cache: str) -> None:
        super().__init__()
        if resize not in RESIZES:
            raise UserMistake(f"extractor.resize={resize!r} is not one of {', '.join(RESIZES)}")
        self.name = "inception-2015" + ("" if resize == "tf1-bilinear" else "-clean")
        self.resize = RESIZES[resize]
        self.given = None if path is None else Path(path).expanduser()
        self.cached = Path(cache).expanduser() / "extractors" / INCEPTION_FILE
        self.network: Network | None = None
        self.card = {
            "name": self.name,
            "sha256": INCEPTION_SHA256,
            "layer": "pool 3; logits without bias, 1008 classes",
            "feature_dim": 2048,
            "input_size": SIZE,
            "resize": resize,
            "channels": "3; grey repeated",
            "value_range": [-1, 127 / 128],
        }

    def prepare(self) -> None:
        """Find or download the weights, check their sha256, load them. Raises UserMistake."""
        if self.network is not None:
            return
        path = self.given or self.cached
        if self.given is None:
            fetch(self.cached)
        elif not self.given.is_file():
            raise UserMistake(f"extractor.path={self.given}: there is no such file")
        check(path)
        self.load(torch.load(path, map_location="cpu", weights_only=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict as published, with separate batch normalisation."""
        with torch.device("meta"):  # draws no initial weights from the global generator
            network = Network()
        network.load_state_dict(folded(state), assign=True)
        check_folded(network, state)
        self.network = network.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Features (N, 2048) and logits (N, 1008) of level indices (N, 1 or 3, H, W) of any size.

        Raises ValueError for other numbers of channels.
        """
        self.begin(pixels, GREY_OR_COLOUR)
        size = BATCH_ON_CPU if pixels.device.type == "cpu" else len(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            found = [self._read(batch, levels) for batch in torch.split(pixels, max(1, size))]
        return Features(
            torch.cat([batch.features for batch in found]),
            torch.cat([batch.logits for batch in found]),
        )

    def _read(self, pixels: Tensor, levels: int) -> Features:
        assert self.network is not None
        images = self.resize(pixels.float() * (255 / (levels - 1)))
        images = ((images - 128) / 128).expand(-1, 3, -1, -1)
        features: Features = self.network(images.contiguous(memory_format=torch.channels_last))
        return features


def check(path: Path, sha256: str = INCEPTION_SHA256) -> None:
    """Raise UserMistake if a file is not the one with this sha256."""
    found = sha256_of(path)
    if found != sha256:
        raise UserMistake(
            f"{path} ({path.stat().st_size:,} bytes, sha256 {found[:8]}...) is not the Inception of "
            f"2015 ({INCEPTION_BYTES:,} bytes, sha256 {sha256[:8]}...): delete it, and fetch {URL}"
        )


def fetch(path: Path, url: str = URL, sha256: str = INCEPTION_SHA256) -> None:
    """Download the weights to `path` atomically, by one process at a time; nothing if they are there.

    Raises MissingWeights if the download fails, UserMistake if its sha256 is another.
    """
    if path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(".lock")):
            if not path.is_file():
                log.warning("fetching %s (%d MiB)", url, INCEPTION_BYTES >> 20)
                with atomic_write(path) as temporary:
                    _download(url, temporary)
                    check(temporary, sha256)
    except (OSError, HTTPException) as error:
        raise MissingWeights(
            f"the weights of inception-2015 are not here and cannot be fetched ({error})",
            f"download {url} elsewhere and put it at {path} or give extractor.path=...",
        ) from error


def _download(url: str, path: Path) -> None:
    """Download with a log line every quarter; raises OSError if fewer bytes come than announced."""
    with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as source, path.open("wb") as target:
        whole = int(source.headers.get("Content-Length") or 0)
        done = logged = 0
        while chunk := source.read(1 << 20):
            done += target.write(chunk)
            if whole and 4 * done // whole > logged:
                logged = 4 * done // whole
                log.warning("%d of %d MiB", done >> 20, whole >> 20)
    if done < whole:
        raise OSError(f"the connection ended after {done:,} of {whole:,} bytes")
