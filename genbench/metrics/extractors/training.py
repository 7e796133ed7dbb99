"""Trains the small classifier of a dataset, once; afterwards its weights are fixed.

    genbench extractor train --dataset fashion-mnist
    genbench extractor train --dataset image-folder dataset.root=~/pictures

write `<dataset>-lenet-<first digits of its sha256>.safetensors` and its card, a `.json`, into
`<cache>/extractors`; use that file by `extractor=lenet extractor.path=FILE`. The shipped classifiers
were made with a name:

    genbench extractor train lenet-mnist-v1 --data data --out folder

One thread, one seed, and numpy's draws of initial weights and order make the file reproducible on the
same machine. Other processors round differently and make another file, whose scores get columns of
their own: publish the file with the scores.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from genbench.data.contract import Split
from genbench.device import device_of
from genbench.errors import UserMistake
from genbench.metrics.contract import Features
from genbench.metrics.extractors import convnet_training, factors_training
from genbench.metrics.extractors.classifier import Classifier
from genbench.metrics.extractors.convnet import ConvNet
from genbench.metrics.extractors.factors import FactorReader
from genbench.metrics.extractors.lenet import LeNet, Network
from genbench.runs.files import atomic_write, write_json

SEED = 0

BATCH = 64

LEARNING_RATE = 2e-3

WEIGHT_DECAY = 1e-2

IMAGES = 75_000  # images shown in training, unless EPOCHS passes are more

EPOCHS = 6

READ = 1000  # images at a time without gradients

Labels = NDArray[np.int64]

Array = NDArray[np.float64]


class Labelled(NamedTuple):
    """Level indices (N, C, S, S) uint8 with classes (N,) int64."""

    pixels: Tensor
    labels: Tensor
    levels: int

    @property
    def images(self) -> Tensor:
        """The images as the network reads them: float32 in [0, 1]."""
        return self.pixels.float() / (self.levels - 1)


def train(data: Labelled, classes: int, epochs: int, seed: int = SEED) -> Network:
    """Fit a network to labelled images; bit-identical on the same machine."""
    with _reproducible():
        return _train(data, classes, epochs, seed)


@contextmanager
def _reproducible() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):  # constructors draw weights, overwritten later
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def train_convnet(
    data: Labelled,
    classes: int,
    epochs: int,
    flip: bool,
    device: torch.device,
    seed: int,
    half: bool,
) -> nn.Module:
    """Fit a residual network on `device`, in half precision at the end; no global generator is moved."""
    with (
        torch.random.fork_rng(devices=[]),
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=True
        ),
    ):
        network = convnet_training.train(
            data.pixels,
            data.labels,
            classes,
            levels=data.levels,
            epochs=epochs,
            flip=flip,
            device=device,
            seed=seed,
            half=half,
        )
    return (
        network.half().float().to(memory_format=torch.channels_last)
    )  # as stored, as computed with


def _train(data: Labelled, classes: int, epochs: int, seed: int) -> Network:
    draw = np.random.RandomState(seed)
    network = Network(data.pixels.shape[2], data.pixels.shape[1], classes)
    _initialise(network, draw)
    n = len(data.pixels)
    batch = min(BATCH, n)
    steps = epochs * (n // batch)
    optimizer = torch.optim.AdamW(
        network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=False
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images = data.images
    for _ in range(epochs):
        order = torch.from_numpy(draw.permutation(n))
        for rows in order[: n // batch * batch].split(batch):  # type: ignore[no-untyped-call]
            loss = F.cross_entropy(network(images[rows]).logits, data.labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network


def _initialise(network: nn.Module, draw: np.random.RandomState) -> None:
    """He et al. 2015, https://arxiv.org/abs/1502.01852: N(0, 2 / inputs); biases 0."""
    for parameter in network.parameters():
        values = np.zeros(parameter.shape)
        if parameter.ndim > 1:
            values = draw.standard_normal(parameter.shape) * (2 / parameter[0].numel()) ** 0.5
        parameter.data.copy_(torch.from_numpy(values))


# --- data -------------------------------------------------------------------------------------
def label(data: Any) -> dict[Split, Labelled]:
    """The training and the test split with their classes. Raises UserMistake if none are known."""
    labels = _labels(data)
    splits: tuple[Split, ...] = ("train", "test")
    return {
        split: Labelled(
            torch.from_numpy(np.array(data.pixels(split)[:])),
            torch.from_numpy(labels[data.source.split(split)]),
            data.levels,
        )
        for split in splits
    }


def _labels(data: Any) -> Labels:
    """Classes of all pictures, by their number in the source. Raises UserMistake."""
    found = data.source.classes()
    if found is None or len(found.names) < 2:
        raise UserMistake(
            f"no classes are known for dataset {data.name}: a classifier can be trained on digits, on "
            "mnist, fashion-mnist and kmnist with their label files beside the images, and on an "
            "image-folder whose pictures lie in one subfolder for each class"
        )
    labels: Labels = found.labels
    return labels


# --- the card ---------------------------------------------------------------------------------
@torch.no_grad()
def look(network: nn.Module, images: Tensor) -> Features:
    """Features and logits on the CPU of images (N, C, S, S) in [0, 1]; computed where the network is."""
    device = next(network.parameters()).device
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        parts = [network(rows.to(device)) for rows in torch.split(images, READ)]
    return Features(*(torch.cat(kind).cpu() for kind in zip(*parts, strict=True)))


def goldens(network: nn.Module, data: dict[Split, Labelled]) -> dict[str, float]:
    """Reference values for these weights, by formulas independent of the metrics' code.

    Frechet distances of the training images to test images, to blurred test images and to uniform
    noise, and the Inception Score of test images.
    """
    train, test = data["train"], data["test"]
    real = look(network, train.images).features
    heldout = look(network, test.images)
    return {
        "fd_train_test": _distance(real, heldout.features),
        "fd_blur": _distance(real, look(network, blurred(test)).features),
        "fd_noise": _distance(real, look(network, uniform(test)).features),
        "is_test": _score(heldout.logits),
    }


def blurred(data: Labelled) -> Tensor:
    """Images after a 3 x 3 mean filter, rounded to levels, in [0, 1]."""
    mean = F.avg_pool2d(data.pixels.float(), 3, 1, padding=1, count_include_pad=False)
    return mean.round() / (data.levels - 1)


def uniform(data: Labelled) -> Tensor:
    """As many images of uniformly drawn levels, in [0, 1]."""
    drawn = np.random.RandomState(SEED).randint(0, data.levels, tuple(data.pixels.shape))
    return torch.from_numpy(drawn).float() / (data.levels - 1)


def _distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance by triangular factors of the covariances, S = R^T R, without matrix roots."""
    x, y = a.double().numpy(), b.double().numpy()
    r, q = _factor(x), _factor(y)
    shift = x.mean(0) - y.mean(0)
    cross = np.linalg.svd(r @ q.T, compute_uv=False).sum()
    return float(shift @ shift + (r**2).sum() + (q**2).sum() - 2 * cross)


def _factor(x: Array) -> Array:
    """R with R^T R = covariance of the rows (N, D)."""
    factor: Array = np.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r")  # type: ignore[assignment]
    return factor


def _score(logits: Tensor) -> float:
    """Inception score in one split."""
    z: Array = logits.double().numpy()
    logs = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    p = np.exp(logs)
    return float(np.exp((p * (logs - np.log(p.mean(0)))).sum(1).mean()))


def accuracy(network: nn.Module, data: Labelled) -> float:
    """Fraction of images whose class is predicted correctly."""
    found = look(network, data.images).logits.argmax(1)
    return float((found == data.labels).double().mean())


ARCHITECTURES: dict[str, type[Classifier]] = {"lenet": LeNet, "convnet": ConvNet}


class Training(NamedTuple):
    """How a classifier is trained, beside its data; None for the architecture's own numbers."""

    architecture: str = "lenet"
    epochs: int | None = None
    device: str = "auto"  # auto, cpu or cuda; all but a convnet are trained on the CPU
    seed: int = SEED
    precision: str = "auto"  # of a convnet: 32-true, bf16-mixed; auto: the latter on a GPU

    def device_for(self) -> torch.device:
        """Raises UserMistake for a device that is not there or not of this architecture."""
        if self.architecture != "convnet":
            if self.device == "cuda":
                raise UserMistake(
                    f"--device cuda: a {self.architecture} is trained on one CPU thread, so that its file is "
                    "reproducible; --architecture convnet takes a GPU"
                )
            return torch.device("cpu")
        return device_of(self.device)

    def fit(self, data: Any, train_split: Labelled, classes: int) -> tuple[nn.Module, Any]:
        """The network, in eval mode on the CPU, and the card's recipe."""
        n, device, flip = len(train_split.pixels), self.device_for(), bool(data.flip)
        if self.architecture == "lenet":
            epochs = self.epochs or max(EPOCHS, IMAGES // n)
            return train(train_split, classes, epochs, self.seed).eval(), _recipe(epochs, self.seed)
        epochs = self.epochs or max(convnet_training.EPOCHS, convnet_training.IMAGES // n)
        half = self.precision == "bf16-mixed" or (
            self.precision == "auto" and device.type == "cuda"
        )
        network = train_convnet(train_split, classes, epochs, flip, device, self.seed, half)
        return network.eval(), convnet_training.recipe(epochs, flip, self.seed, half)


def write_reader(name: str | None, data: Any, folder: Path, training: Training) -> Path:
    """Train a reader of the factors of `data`, save it and its card in `folder`; the weights' path."""
    factors, pixels = factors_training.factors_of(data, "train"), data.pixels("train")
    epochs = training.epochs or max(1, factors_training.IMAGES // len(pixels))
    with _reproducible():
        network = factors_training.train(
            torch.from_numpy(np.array(pixels[:])),
            data.levels,
            factors,
            epochs,
            np.random.RandomState(training.seed),
        )
    network = network.eval().half().float()  # as stored, as computed with
    path, begun = _saved(name, network, data, folder, "factors")
    wrong = {split: factors_training.errors(network, data, split) for split in ("train", "test")}
    named = zip(factors.names, factors.values, strict=True)
    card = begun | {
        "classes": sum(factors.sizes),
        "factors": [{"name": one, "values": list(values)} for one, values in named],
        "recipe": factors_training.recipe(epochs, training.seed),
        "trained_on": data.card("train"),
        "tested_on": data.card("test"),
        "errors": wrong,
        "accuracy": {split: 1 - rates["any"] for split, rates in wrong.items()},
        "made_with": _made_with("factors", torch.device("cpu")),
    }
    write_json(path.with_suffix(".json"), card)
    FactorReader(str(path)).prepare()
    return path


def _saved(
    name: str | None, network: nn.Module, data: Any, folder: Path, architecture: str
) -> tuple[Path, dict[str, Any]]:
    """Write the weights, named by their sha256 if no name is given; the path, and how the card begins."""
    content = save(_stored(network, architecture))
    sha256 = hashlib.sha256(content).hexdigest()
    name = name or f"{data.name}-{architecture}-{sha256[:8]}"
    path = folder / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:  # before the card, which takes a while
        temporary.write_bytes(content)
    return path, {
        "name": name,
        "sha256": sha256,
        "architecture": architecture,
        "image_size": data.image_size,
        "channels": data.channels,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def write(name: str | None, data: Any, folder: Path, training: Training | None = None) -> Path:
    """Train a classifier on `data`, save it and its card in `folder`; returns the weights' path.

    Without a `name` the sha256 of the weights gives one.
    """
    training = training or Training()
    device = training.device_for()  # checked before the data is read
    if training.architecture == "factors":
        return write_reader(name, data, folder, training)
    splits = label(data)
    classes = 1 + max(int(part.labels.max()) for part in splits.values())
    network, recipe = training.fit(data, splits["train"], classes)
    path, begun = _saved(name, network, data, folder, training.architecture)
    network.to(device)
    card = {
        **begun,
        "classes": classes,
        "recipe": recipe,
        "trained_on": data.card("train"),
        "tested_on": data.card("test"),
        "accuracy": {split: accuracy(network, part) for split, part in splits.items()},
        "goldens": goldens(network, splits),
        "made_with": _made_with(training.architecture, device),
    }
    write_json(path.with_suffix(".json"), card)
    ARCHITECTURES[training.architecture](str(path)).prepare()
    return path


def _stored(network: nn.Module, architecture: str) -> dict[str, Tensor]:
    """Weights as they are written: a convnet's in half precision, to which they were rounded."""
    weights = network.state_dict()
    if architecture == "lenet":
        return weights
    return {key: value.half().contiguous() for key, value in weights.items()}


def _recipe(epochs: int, seed: int) -> dict[str, Any]:
    return {
        "optimizer": "AdamW, cosine to 0",
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "batch_size": BATCH,
        "epochs": epochs,
        "seed": seed,
        "version": 1,
    }


def _made_with(architecture: str, device: torch.device) -> dict[str, Any]:
    threads = 1 if architecture != "convnet" else torch.get_num_threads()
    made = {"torch": torch.__version__, "numpy": np.__version__, "threads": threads}
    if device.type == "cuda":
        made["device"] = torch.cuda.get_device_name(device)
    return made
