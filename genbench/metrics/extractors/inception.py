"""The Inception network of the Frechet Inception Distance: TensorFlow's of 2015-12-05.

Szegedy et al. 2015, https://arxiv.org/abs/1512.00567; the weights are TensorFlow's own, converted by
pytorch-fid and torch-fidelity (Apache-2.0). It differs from torchvision's Inception v3 in its average
pools, which leave the border out, in one pool of the last block, and in having 1008 classes.
Batch normalisation is folded into the convolutions, and the layout is channels-last: a third less time.
"""

import fcntl
import logging
import os
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from genbench.errors import GenbenchError, UserMistake
from genbench.metrics.contract import Extractor, Features
from genbench.metrics.extractors import INCEPTION_BYTES, INCEPTION_FILE, INCEPTION_SHA256, sha256_of

log = logging.getLogger("genbench")


URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"


SILENCE_SECONDS = 30  # of the network, after which a download is given up


SIZE = 299


BATCH_ON_CPU = 16  # what stays in the processor's cache


BN_EPSILON = 1e-3  # TensorFlow's


TOLERANCE = 1e-5  # relative, of a folded convolution


Resize = Literal["tf1-bilinear", "pil-bicubic"]


# --- the graph --------------------------------------------------------------------------------
class Conv(nn.Conv2d):
    """Convolution and ReLU; the bias holds the batch normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, keep what is positive."""
        return F.relu(super().forward(x), inplace=True)


def _average(x: Tensor) -> Tensor:
    """TensorFlow's average pool: what lies outside of the image does not count."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """Mixed 5b, 5c, 5d: 35 x 35."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1 = Conv(inputs, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Four branches side by side."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x))], 1)


class BlockB(nn.Module):
    """Mixed 6a: 35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Three branches side by side."""
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, stride=2)], 1)


class BlockC(nn.Module):
    """Mixed 6b to 6e: 17 x 17, `narrow` channels inside."""

    def __init__(self, narrow: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1 = Conv(768, narrow, 1)
        self.branch7x7_2 = Conv(narrow, narrow, (1, 7), padding=(0, 3))
        self.branch7x7_3 = Conv(narrow, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = Conv(768, narrow, 1)
        self.branch7x7dbl_2 = Conv(narrow, narrow, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = Conv(narrow, narrow, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = Conv(narrow, narrow, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = Conv(narrow, 192, (1, 7), padding=(0, 3))
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Four branches side by side."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), seven, twice, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """Mixed 7a: 17 x 17 to 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(768, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(768, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Three branches side by side."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], 1)


class BlockE(nn.Module):
    """Mixed 7b with an average pool, and 7c, which has a maximum in its place: 8 x 8."""

    def __init__(self, inputs: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Six branches side by side."""
        three = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(twice),
                self.branch3x3dbl_3b(twice),
                self.branch_pool(self.pool(x)),
            ],
            1,
        )


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


class Network(nn.Module):
    """(N, 3, 299, 299) in about [-1, 1] to 2048 features, and to logits without their bias.

    Without the bias, because so does the score of Salimans et al. 2016, section 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(128)
        self.Mixed_6c = BlockC(160)
        self.Mixed_6d = BlockC(160)
        self.Mixed_6e = BlockC(192)
        self.Mixed_7a = BlockD()
        self.Mixed_7b = BlockE(1280, _average)
        self.Mixed_7c = BlockE(2048, _maximum)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> Features:
        """Features after the last pool (N, 2048), logits (N, 1008)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features = x.mean((2, 3))
        return Features(features, features @ self.fc.weight.T)


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold each batch normalisation into its convolution: weights as published to `Network`'s.

    W' = W g / s and b' = b - m g / s, where s = sqrt(v + epsilon).
    """
    result = {name: state[name] for name in ("fc.weight", "fc.bias")}
    for name in state:
        if not name.endswith(".conv.weight"):
            continue
        block = name.removesuffix(".conv.weight")
        weight, gain, shift, mean, variance = (
            state[f"{block}.{part}"].double()
            for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        factor = gain / (variance + BN_EPSILON).sqrt()
        result[f"{block}.weight"] = (weight * factor.view(-1, 1, 1, 1)).float()
        result[f"{block}.bias"] = (shift - mean * factor).float()
    return result


def check_folded(network: Network, state: Mapping[str, Tensor]) -> None:
    """Raise GenbenchError where a folded convolution and the published pair give other numbers."""
    for name, layer in network.named_modules():
        if not isinstance(layer, Conv):
            continue
        conv, gain, shift, mean, variance = (
            state[f"{name}.{part}"].float()
            for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        inputs = conv.shape[1]
        probe = torch.arange(inputs * 49, dtype=torch.float32).cos().view(1, inputs, 7, 7)
        expected = F.batch_norm(F.conv2d(probe, conv), mean, variance, gain, shift, eps=BN_EPSILON)
        found = F.conv2d(probe, layer.weight, layer.bias)
        if not (found - expected).norm() <= TOLERANCE * expected.norm():
            raise GenbenchError(
                f"{name} of the Inception is not the same after folding its batch normalisation: "
                "the weights or this PyTorch are broken"
            )


# --- resizing ---------------------------------------------------------------------------------
def tf1_bilinear(images: Tensor) -> Tensor:
    """Resize (N, C, H, W) to 299 x 299 as TensorFlow 1 does: corners unaligned, no half pixel."""
    for dim in (3, 2):
        size = images.shape[dim]
        position = torch.arange(SIZE, device=images.device) * torch.tensor(
            size / SIZE, device=images.device
        )
        below = position.long()
        above = (below + 1).clamp_max(size - 1)
        share = (position - below).view((-1, 1) if dim == 2 else (-1,))
        left, right = images.index_select(dim, below), images.index_select(dim, above)
        images = left + (right - left) * share
    return images


def pil_bicubic(images: Tensor) -> Tensor:
    """Resize (N, C, H, W) to 299 x 299 as Pillow does floats: Parmar, Zhang, Zhu 2022."""
    return bicubic(images, SIZE)


def bicubic(images: Tensor, size: int) -> Tensor:
    """Resize (N, C, H, W) in 0 .. 255 to `size` pixels a side as Pillow does floats, clamped."""
    rows, columns = (_weights(own, size).to(images.device) for own in images.shape[2:])
    return (rows @ images @ columns.T).clamp(0, 255)


def _weights(own: int, size: int) -> Tensor:
    """Pillow's weights (size, own): what it makes of each unit vector."""
    identity = Image.fromarray(np.eye(own, dtype=np.float32))
    resized = identity.resize((size, own), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized).T.copy())


RESIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "tf1-bilinear": tf1_bilinear,
    "pil-bicubic": pil_bicubic,
}


# --- the extractor ----------------------------------------------------------------------------
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
        """Find or fetch the weights, check them, load them. Raises UserMistake."""
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
        """Take weights as published, batch normalisation apart."""
        with torch.device("meta"):  # draws no weights, which would move the global generator
            network = Network()
        network.load_state_dict(folded(state), assign=True)
        check_folded(network, state)
        self.network = network.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor, levels: int) -> Features:
        """Features of level indices (N, 1 or 3, H, W), H and W of any size."""
        if self.network is None:
            self.prepare()
            self.to(pixels.device)
        assert self.network is not None
        if pixels.shape[1] not in (1, 3):
            raise ValueError(f"{self.name} reads images of 1 or 3 channels, not {pixels.shape[1]}")
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
    """Download the weights to `path`, whole or not at all; one process at a time.

    Raises UserMistake where that cannot be done.
    """
    if path.is_file():
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                log.warning("fetching %s (%d MiB)", url, INCEPTION_BYTES >> 20)
                _download(url, partial)
                check(partial, sha256)
                os.replace(partial, path)
    except (OSError, HTTPException) as error:
        raise UserMistake(
            f"the weights of inception-2015 are not here and cannot be fetched ({error}): download "
            f"{url} elsewhere and put it at {path} or give extractor.path=..., or choose an extractor "
            "that needs no download (extractor=lenet-digits-v1, extractor=lenet-mnist-v1)"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _download(url: str, path: Path) -> None:
    """Fetch `url`, a line in the log for every quarter; raises OSError if less comes than was said."""
    with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as source, path.open("wb") as target:
        whole = int(source.headers.get("Content-Length") or 0)
        done = told = 0
        while chunk := source.read(1 << 20):
            done += target.write(chunk)
            if whole and 4 * done // whole > told:
                told = 4 * done // whole
                log.warning("%d of %d MiB", done >> 20, whole >> 20)
    if done < whole:
        raise OSError(f"the connection ended after {done:,} of {whole:,} bytes")
