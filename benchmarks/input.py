"""CPU time per image of the training input: genbench against what its users would write by hand.

    python benchmarks/input.py [--data FOLDER] [--rounds 7] [--json]

I1  torchvision dataset, PIL transforms, DataLoader with num_workers=0, on MNIST and on 32 x 32
    colour JPEGs with random flips
I2  the whole set as float32 in a TensorDataset, DataLoader with num_workers=0, on MNIST
I3  decoding once, as a share of one epoch of I1

Batches of 64 on one thread; each side ends with a float tensor in [-1, 1]. The sides take turns, and
the ratio is the median over the rounds. Without `--data` (a folder with torchvision's MNIST) the
28 x 28 set is made of scikit-learn's digits; the JPEGs are always made here.
"""

import argparse
import json
import os
import platform
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets, transforms

from genbench.data.folders import Folder
from genbench.data.images import Images
from genbench.data.sources import Idx

sys.path.insert(0, str(Path(__file__).parent.parent))
BATCH = 64
Epoch = Callable[[int], Iterator[Tensor]]  # of at least so many images


def make_idx(root: Path, count: int) -> None:
    """Write scikit-learn's digits, enlarged, as MNIST's training file and a small test file."""
    from sklearn.datasets import load_digits

    digits = load_digits().images.astype(np.uint8) * 15
    large = [np.asarray(Image.fromarray(digit).resize((28, 28))) for digit in digits]
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, number in (("train", count), ("t10k", 100)):
        pixels = np.stack([large[i % len(large)] for i in range(number)])
        header = struct.pack(">4i", 2051, number, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = struct.pack(">2i", 2049, number) + bytes(number)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(labels)


def make_jpegs(root: Path, count: int) -> None:
    """Write smooth random colour pictures of 32 x 32, about 1 kB each as CIFAR's are."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = root / "train" / f"{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(path, quality=90)


def genbench(data: Images) -> Epoch:
    """Read as a Trainer does: the stream, then the hook that flips and scales."""

    def epoch(images: int) -> Iterator[Tensor]:
        data.plan(seed=0, batch_size=BATCH, pieces=1, steps=images // BATCH, steps_per_batch=1)
        for batch in data.train_dataloader():
            yield data.training_images(batch)

    return epoch


def images_of(source: Any, root: Path, cache: Path, **changes: Any) -> Images:
    """A dataset as its config would make it."""
    settings = {"crop": None, "resize": "bicubic", "convert": False, "upscale": False, "test": None}
    return Images(
        name="bench",
        source=source,
        root=str(root),
        download=False,
        levels=256,
        cache=str(cache),
        cache_gb=64,
        device_resident=False,
        workers=0,
        **(settings | changes),
    )


def loader(dataset: Any) -> Epoch:
    """Read with PyTorch's DataLoader."""

    def epoch(images: int) -> Iterator[Tensor]:
        done = 0
        while done < images:
            for batch in DataLoader(dataset, BATCH, shuffle=True, num_workers=0):
                yield batch[0]
                done += BATCH
                if done >= images:
                    return

    return epoch


def microseconds(epoch: Epoch, images: int) -> float:
    """CPU time per image, all threads of the process counted."""
    before, seen = time.process_time(), 0
    for batch in epoch(images):
        seen += len(batch)
    return (time.process_time() - before) / seen * 1e6


def compare(peer: Epoch, mine: Epoch, rounds: int, images: tuple[int, int]) -> dict[str, Any]:
    """Take turns, and keep the median of the paired ratios; then each alone, for its memory."""
    from benchmarks.memory import peak_mb

    microseconds(peer, images[0] // 4), microseconds(mine, images[1] // 4)
    pairs = [(microseconds(peer, images[0]), microseconds(mine, images[1])) for _ in range(rounds)]
    ratios = [theirs / ours for theirs, ours in pairs]
    return {
        "peer_us": statistics.median(theirs for theirs, _ in pairs),
        "genbench_us": statistics.median(ours for _, ours in pairs),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "peak_mb": peak_mb(partial(microseconds, mine, images[1])),
        "peer_peak_mb": peak_mb(partial(microseconds, peer, images[0])),
    }


def measure(data: Path | None, rounds: int, images: int) -> list[dict[str, Any]]:
    """Every row of the table."""
    torch.set_num_threads(1)
    scaled = [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        if data is None:
            make_idx(room / "idx", 20_000)
        idx_root = data or room / "idx"
        make_jpegs(room / "jpeg", 4_000)

        source = partial(Idx, torchvision_class="MNIST", title="MNIST", megabytes=11)
        shape = {"image_size": 28, "channels": 1, "validation": 64, "flip": False}
        make = partial(images_of, source, idx_root, **shape)
        once = {"MNIST": [decode_once(make(room / f"cache-{lap}")) for lap in range(rounds)]}
        mnist = make(room / "cache-0")
        pil = loader(datasets.MNIST(idx_root, transform=transforms.Compose(scaled)))
        pixels = torch.from_numpy(np.array(mnist.pixels("train")))
        floats = loader(TensorDataset(pixels.float() / 127.5 - 1))
        sizes = images, 10 * images
        name = "MNIST" if data else "digits as MNIST"
        row = compare(pil, genbench(mnist), rounds, sizes)
        rows.append({"id": "I1", "set": name, "demand": 35} | row)
        row = compare(floats, genbench(mnist), rounds, (5 * images, 10 * images))
        rows.append({"id": "I2", "set": name, "demand": 2} | row)

        shape = {"image_size": 32, "channels": 3, "validation": 64, "test": 64, "flip": True}
        make = partial(images_of, Folder, room / "jpeg", **shape)
        once["JPEG"] = [decode_once(make(room / f"cache-{lap}")) for lap in range(rounds)]
        jpegs = make(room / "cache-0")
        steps = [transforms.RandomHorizontalFlip(), *scaled]
        pil = loader(datasets.ImageFolder(room / "jpeg" / "train", transforms.Compose(steps)))
        row = compare(pil, genbench(jpegs), rounds, sizes)
        rows.append({"id": "I1", "set": "32 x 32 JPEG", "demand": 35} | row)
        for (label, laps), peer in zip(once.items(), (rows[0], rows[2]), strict=True):
            ratios = [spent / peer["peer_us"] for spent in laps]
            rows.append(
                {"id": "I3", "set": label, "peer_us": peer["peer_us"], "demand": 1}
                | {"genbench_us": statistics.median(laps), "ratio": statistics.median(ratios)}
                | {"low": min(ratios), "high": max(ratios)}
            )
    return rows


def decode_once(data: Images) -> float:
    """CPU time per image of building the cache."""
    before = time.process_time()
    data.prepare_data()
    seconds = time.process_time() - before
    return seconds / sum(len(data.pixels(s)) for s in ("train", "validation", "test")) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=6_400)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.data, arguments.rounds, arguments.images)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if arguments.json:
        json.dump({"machine": machine, "rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    table = Table("", "set", "peer us", "genbench us", "ratio", "range", "demand", title=machine)
    for row in rows:
        spread = f"{row['low']:.1f} - {row['high']:.1f}"
        sign = "<=" if row["id"] == "I3" else ">="
        numbers = f"{row['peer_us']:.2f}", f"{row['genbench_us']:.2f}", f"{row['ratio']:.2f}"
        table.add_row(row["id"], row["set"], *numbers, spread, f"{sign} {row['demand']}")
    Console().print(table)


if __name__ == "__main__":
    main()
