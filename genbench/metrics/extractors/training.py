"""How the weights of a small classifier are made; done once per dataset, and then they are fixed.

    python -m genbench.metrics.extractors.training lenet-mnist-v1 --data data --out folder

writes `<name>.safetensors` and its card `<name>.json`. One thread, one seed, and numpy draws the
initial weights and the order, so that the same machine makes the same file again. Another processor
rounds otherwise and makes another file: that is why weights are shipped, and not trained by users.
"""

import argparse
import gzip
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from hydra import compose
from hydra.utils import instantiate
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from genbench.errors import DONE, GenbenchError, UserMistake
from genbench.interfaces import Features, ImageData, Split
from genbench.metrics.extractors import sha256_of
from genbench.metrics.extractors.lenet import LeNet, Network
from genbench.metrics.frechet import distance, moments
from genbench.metrics.inception_score import inception_score
from genbench.mistakes import composing, config_root

SEED = 0
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
IMAGES = 75_000  # at least so many, and at least EPOCHS times all of them
EPOCHS = 6
READ = 1000  # images at a time, where nothing is learnt

Labels = NDArray[np.int64]


class Labelled(NamedTuple):
    """Level indices (N, C, S, S) with a class each."""

    pixels: Tensor
    labels: Tensor
    levels: int

    @property
    def images(self) -> Tensor:
        """As the network reads them: in [0, 1]."""
        return self.pixels.float() / (self.levels - 1)


def train(data: Labelled, classes: int, epochs: int) -> Network:
    """Fit a network to labelled images; the same bits on the same machine."""
    with _reproducible():
        return _train(data, classes, epochs)


@contextmanager
def _reproducible() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):  # constructors draw what is then overwritten
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _train(data: Labelled, classes: int, epochs: int) -> Network:
    draw = np.random.RandomState(SEED)
    network = Network(data.pixels.shape[2], data.pixels.shape[1], classes)
    _initialise(network, draw)
    n = len(data.pixels)
    steps = epochs * (n // BATCH)
    optimizer = torch.optim.AdamW(
        network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=False
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images = data.images
    for _ in range(epochs):
        order = torch.from_numpy(draw.permutation(n))
        for rows in order[: n // BATCH * BATCH].split(BATCH):  # type: ignore[no-untyped-call]
            loss = F.cross_entropy(network(images[rows]).logits, data.labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network


def _initialise(network: nn.Module, draw: np.random.RandomState) -> None:
    """He et al. 2015, https://arxiv.org/abs/1502.01852: normal, variance 2 / inputs; no bias."""
    for parameter in network.parameters():
        values = np.zeros(parameter.shape)
        if parameter.ndim > 1:
            values = draw.standard_normal(parameter.shape) * (2 / parameter[0].numel()) ** 0.5
        parameter.data.copy_(torch.from_numpy(values))


# --- data -------------------------------------------------------------------------------------


def read(
    dataset: str, root: str, cache: str | None = None
) -> tuple[ImageData, dict[Split, Labelled]]:
    """A dataset's training and test split, as every run sees them, with labels."""
    with composing(config_root()):
        where = [f"paths.data={root}", *([f"paths.cache={cache}"] if cache else [])]
        cfg = compose("train", [f"dataset={dataset}", *where]).dataset
    data: Any = instantiate(cfg)
    data.prepare_data()
    labels = _labels(dataset, data)
    splits: tuple[Split, ...] = ("train", "test")
    return data, {
        split: Labelled(
            torch.from_numpy(np.array(data.pixels(split))),
            torch.from_numpy(labels[data.source.split(split)]),
            data.levels,
        )
        for split in splits
    }


def _labels(dataset: str, data: Any) -> Labels:
    """Classes of all pictures, in the order of the source's numbers."""
    if dataset == "digits":
        from sklearn.datasets import load_digits

        targets: Labels = load_digits().target.astype(np.int64)
        return targets
    folder: Path | None = getattr(data.source, "folder", None)
    files = [folder / f"{part}-labels-idx1-ubyte" for part in ("train", "t10k")] if folder else []
    if not files or not all(path.is_file() or _zipped(path).is_file() for path in files):
        raise UserMistake(
            f"no labels are known for dataset {dataset}: a classifier can be trained on digits, and "
            "on mnist, fashion-mnist and kmnist with their label files beside the images"
        )
    return np.concatenate([_read_idx(path) for path in files])


def _zipped(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def _read_idx(path: Path) -> Labels:
    content = path.read_bytes() if path.is_file() else gzip.decompress(_zipped(path).read_bytes())
    return np.frombuffer(content, np.uint8, offset=8).astype(np.int64)


# --- the card ---------------------------------------------------------------------------------


@torch.no_grad()
def look(network: nn.Module, images: Tensor) -> Features:
    """Features and logits of images in [0, 1]."""
    parts = [network(rows) for rows in torch.split(images, READ)]
    return Features(*(torch.cat(kind) for kind in zip(*parts, strict=True)))


def goldens(network: nn.Module, data: dict[Split, Labelled]) -> dict[str, float]:
    """Numbers that the weights must give again, within 1e-5.

    `fd_blur`: the test images after a 3 x 3 mean, rounded to levels, against the training images.
    """
    train, test = data["train"], data["test"]
    blurred = F.avg_pool2d(test.pixels.float(), 3, 1, padding=1, count_include_pad=False).round()
    real, heldout = look(network, train.images), look(network, test.images)
    damaged = look(network, blurred / (test.levels - 1))
    return {
        "fd_train_test": distance(moments(real.features), moments(heldout.features)),
        "fd_blur": distance(moments(real.features), moments(damaged.features)),
        "is_test": inception_score(heldout.logits),
    }


def accuracy(network: nn.Module, data: Labelled) -> float:
    """Share of images whose class is found."""
    found = look(network, data.images).logits.argmax(1)
    return float((found == data.labels).double().mean())


def write(name: str, dataset: str, root: str, out: Path, cache: str | None = None) -> Path:
    """Train, save, describe; returns the path of the weights."""
    data, splits = read(dataset, root, cache)
    classes = int(splits["train"].labels.max()) + 1
    epochs = max(EPOCHS, IMAGES // len(splits["train"].pixels))
    network = train(splits["train"], classes, epochs).eval()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.safetensors"
    save_file(network.state_dict(), path)
    path.chmod(0o644)  # safetensors leaves it to its owner
    card = {
        "name": name,
        "sha256": sha256_of(path),
        "architecture": "lenet",
        "image_size": data.image_size,
        "channels": data.channels,
        "classes": classes,
        "parameters": sum(p.numel() for p in network.parameters()),
        "recipe": {
            "optimizer": "AdamW, cosine to 0",
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "batch_size": BATCH,
            "epochs": epochs,
            "seed": SEED,
            "version": 1,
        },
        "trained_on": data.card("train"),
        "tested_on": data.card("test"),
        "accuracy": {split: accuracy(network, part) for split, part in splits.items()},
        "goldens": goldens(network, splits),
        "made_with": {"torch": torch.__version__, "numpy": np.__version__, "threads": 1},
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    LeNet(str(path))
    return path


def main(argv: Sequence[str]) -> int:
    """Train the classifier that a name like `lenet-mnist-v1` asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="genbench.metrics.extractors.training")
    parser.add_argument("name", help="lenet-<dataset>-v<number>")
    parser.add_argument("--data", default="data", help="the folder that holds the dataset")
    parser.add_argument("--out", type=Path, default=Path(), help="where the two files go")
    parser.add_argument("--cache", help="where decoded images are kept")
    arguments = parser.parse_args(list(argv))
    named = re.fullmatch(r"lenet-(.+)-v\d+", arguments.name)
    if named is None:
        raise UserMistake(f"{arguments.name} is no name like lenet-mnist-v1")
    path = write(arguments.name, named[1], arguments.data, arguments.out, arguments.cache)
    card = json.loads(path.with_suffix(".json").read_text())
    print(f"{path}: test accuracy {card['accuracy']['test']:.2%}, goldens {card['goldens']}")
    return DONE


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except GenbenchError as error:
        print(f"genbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
