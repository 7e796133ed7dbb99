"""CPU time of scoring: genbench against the libraries that its users would call.

    python benchmarks/metrics.py [--rounds 5] [--images 5000] [--dimensions 2048] [--json]

M1  Frechet distance and inception score of two sets of features, against torch-fidelity's functions
M2  the same where the moments of the real set are known from before
M3  as M1, against torchmetrics' two metrics, fed with batches of 64
M4  the 2015 Inception with random weights on 32 x 32 images, against torch-fidelity's module
M5  all of it: FID, IS and KID of as many generated as real images, against torch-fidelity's one call

Both sides of a row get the same numbers, on one thread, and take turns; the ratio is the median over
the rounds. `differ by` is how far their results are apart, relative to their size; peak memory, own
and the peer's, is that of a process which has both sides' modules and data and does one side's work.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch_fidelity
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from genbench.metrics.extractors.inception import Inception
from genbench.metrics.extractors.inception_network import Network
from genbench.metrics.frechet import distance, moments
from genbench.metrics.inception_score import inception_score
from genbench.metrics.kernel import kernel_distance

sys.path.insert(0, str(Path(__file__).parent.parent))
BATCH = 64
CLASSES = 1008
Side = Callable[[], Tensor]  # the work; what it computed


class Given(torch.nn.Module):
    """An extractor that was run before."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.num_features = dimensions

    def forward(self, features: Tensor) -> Tensor:
        return features


def draw(images: int, dimensions: int, scale: float, seed: int) -> tuple[Tensor, Tensor]:
    """Features as a ReLU leaves them, correlated, and logits."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(dimensions, dimensions, generator=generator) / dimensions**0.5
    generator.manual_seed(seed)
    features = (torch.randn(images, dimensions, generator=generator) * scale @ mixing).relu()
    return features, torch.randn(images, CLASSES, generator=generator)


def scoring(images: int, dimensions: int) -> dict[str, tuple[Side, Side]]:
    """Rows M1 to M3: the peer's side and ours."""
    (real, _), (fake, logits) = draw(images, dimensions, 1, 1), draw(images, dimensions, 1.1, 2)
    known = moments(real)

    def fidelity() -> Tensor:
        two = [fid_features_to_statistics(part) for part in (real, fake)]
        fd = fid_statistics_to_metric(*two, False)["frechet_inception_distance"]
        score = isc_features_to_metric(logits, splits=1, shuffle=False)["inception_score_mean"]
        return torch.tensor([fd, score], dtype=torch.float64)

    def torchmetrics() -> Tensor:
        fd = FrechetInceptionDistance(feature=Given(dimensions))
        score = InceptionScore(feature=Given(CLASSES), splits=1)
        for part, is_real in ((real, True), (fake, False)):
            for batch in torch.split(part, BATCH):
                fd.update(batch, real=is_real)
        for batch in torch.split(logits, BATCH):
            score.update(batch)
        return torch.stack([fd.compute(), score.compute()[0]]).double()

    def cold() -> Tensor:
        fd = distance(moments(real), moments(fake))
        return torch.tensor([fd, inception_score(logits)], dtype=torch.float64)

    def warm() -> Tensor:
        fd = distance(known, moments(fake))
        return torch.tensor([fd, inception_score(logits)], dtype=torch.float64)

    return {"M1": (fidelity, cold), "M2": (fidelity, warm), "M3": (torchmetrics, cold)}


def extracting(images: int, folder: Path) -> tuple[Side, Side]:
    """Row M4."""
    generator = torch.Generator().manual_seed(0)
    path = folder / "weights.pth"
    torch.save(random_weights(generator), path)
    theirs = FeatureExtractorInceptionV3("m4", ["2048"], feature_extractor_weights_path=path)
    ours = Inception(resize="tf1-bilinear", path=None, cache=str(folder))
    ours.load(torch.load(path, weights_only=True))
    shape = images, 3, 32, 32
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    def fidelity() -> Tensor:
        return torch.cat([theirs(batch)[0] for batch in pixels.split(16)])

    return fidelity, lambda: ours(pixels, 256).features


class Images(torch.utils.data.Dataset[Tensor]):
    """Pictures as torch-fidelity takes them: (3, H, W) uint8."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]


def evaluating(images: int, folder: Path) -> tuple[Side, Side]:
    """Row M5: the same images, the same extractor, the same three scores."""
    generator = torch.Generator().manual_seed(1)
    path = folder / "weights.pth"
    if not path.exists():
        torch.save(random_weights(generator), path)
    extractor = Inception(resize="tf1-bilinear", path=None, cache=str(folder))
    extractor.load(torch.load(path, weights_only=True))
    shape = images, 3, 32, 32
    real = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    fake = torch.randint(0, 200, shape, generator=generator, dtype=torch.uint8)

    def fidelity() -> Tensor:
        found = torch_fidelity.calculate_metrics(
            input1=Images(fake),
            input2=Images(real),
            fid=True,
            isc=True,
            kid=True,
            isc_splits=1,
            kid_subsets=1,
            kid_subset_size=images,
            feature_extractor_weights_path=str(path),
            batch_size=16,
            cuda=False,
            cache=False,
            save_cpu_ram=True,
            verbose=False,
        )
        names = (
            "frechet_inception_distance",
            "inception_score_mean",
            "kernel_inception_distance_mean",
        )
        return torch.tensor([found[name] for name in names], dtype=torch.float64)

    def ours() -> Tensor:
        a, b = extractor(fake, 256), extractor(real, 256)
        fid = distance(moments(a.features), moments(b.features))
        kid = kernel_distance(a.features, b.features)
        return torch.tensor([fid, inception_score(a.logits), kid], dtype=torch.float64)

    return fidelity, ours


def random_weights(generator: torch.Generator) -> dict[str, Tensor]:
    """Weights under the published names, of a size that no layer fades out."""
    state: dict[str, Tensor] = {}
    for name, weight in Network().state_dict().items():
        block = name.removesuffix(".weight")
        if name.startswith("fc."):
            state[name] = torch.randn(weight.shape, generator=generator) / 45
        elif name.endswith(".weight"):
            scale = (2 / weight[0].numel()) ** 0.5
            state[f"{block}.conv.weight"] = torch.randn(weight.shape, generator=generator) * scale
            for part, level in (
                ("weight", 1),
                ("bias", 0),
                ("running_mean", 0),
                ("running_var", 1),
            ):
                noise = torch.rand(len(weight), generator=generator) * 0.2
                state[f"{block}.bn.{part}"] = level + noise
            state[f"{block}.bn.num_batches_tracked"] = torch.tensor(0)
    return state


def seconds(side: Side) -> tuple[float, Tensor]:
    began = time.process_time()
    result = side()
    return time.process_time() - began, result


@torch.no_grad()
def compare(peer: Side, ours: Side, rounds: int) -> dict[str, float]:
    """Let the two take turns; then each alone, for its memory."""
    from benchmarks.memory import peak_mb

    ratios, theirs, own, difference = [], [], [], 0.0
    for _ in range(rounds):
        (a, expected), (b, found) = seconds(peer), seconds(ours)
        ratios.append(b / a)
        theirs.append(a)
        own.append(b)
        difference = float((found - expected).norm() / expected.norm())
    return {
        "peer_s": statistics.median(theirs),
        "genbench_s": statistics.median(own),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "difference": difference,
        "peak_mb": peak_mb(ours),
        "peer_peak_mb": peak_mb(peer),
    }


def measure(
    rounds: int, images: int, dimensions: int, inception_images: int
) -> list[dict[str, Any]]:
    demands = {"M1": 1.1, "M2": 0.45, "M3": 0.58, "M4": 0.6, "M5": 1.0}
    peers = {"M1": "torch-fidelity", "M2": "torch-fidelity", "M3": "torchmetrics"}
    rows = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sides = scoring(images, dimensions)
        sides["M4"] = extracting(inception_images, Path(folder))
        sides["M5"] = evaluating(inception_images, Path(folder))
        for name, (peer, ours) in sides.items():
            about = {"id": name, "peer": peers.get(name, "torch-fidelity"), "demand": demands[name]}
            rows.append(about | compare(peer, ours, rounds))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--dimensions", type=int, default=2_048)
    parser.add_argument("--inception-images", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(
        arguments.rounds, arguments.images, arguments.dimensions, arguments.inception_images
    )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if arguments.json:
        json.dump({"machine": machine, "rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    columns = "", "peer", "peer s", "own s", "ratio", "range", "demand", "differ by", "peak MB"
    table = Table(*columns, title=machine)
    for row in rows:
        numbers = f"{row['peer_s']:.2f}", f"{row['genbench_s']:.2f}", f"{row['ratio']:.2f}"
        spread = f"{row['low']:.2f} - {row['high']:.2f}"
        memory = f"{row['peak_mb']:.0f} / {row['peer_peak_mb']:.0f}"
        rest = spread, f"<= {row['demand']}", f"{row['difference']:.0e}", memory
        table.add_row(row["id"], row["peer"], *numbers, *rest)
    Console().print(table)


if __name__ == "__main__":
    main()
