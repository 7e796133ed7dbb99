"""Where pixels come from: the embedded digits, and the sets that are read as arrays.

torchvision knows addresses and checksums and does the downloading; the files are read here, so that
what is missing or cut off can be named.
"""

import gzip
import hashlib
import importlib
import os
import pickle
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.data.cache import locked, say
from genbench.data.contract import Split
from genbench.data.transform import Picture
from genbench.errors import UserMistake

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


SPLIT_SEED = 20_240_229  # of every declared split; never a run's seed, never changed


NETWORK_SECONDS = 30


Share = int | float


Parts = dict[Split, NDArray[np.int64]]


Pixels = NDArray[np.uint8]


class Source(ABC):
    """Pictures in three splits that depend on the files alone.

    `root` is where they lie, `download` whether they may be fetched. `validation` and `test` are
    numbers of pictures, or fractions below 1, to set aside; null where the set's makers did so.
    """

    def __init__(
        self, root: Path | None, download: bool, validation: Share | None, test: Share | None
    ) -> None:
        self.given_root, self.download = root, download
        self.validation, self.test = validation, test

    @property
    def root(self) -> Path:
        """The folder in which the set's own folder lies."""
        if self.given_root is None:
            raise UserMistake("dataset.root is not set: give the folder that holds the pictures")
        return self.given_root

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the pictures are looked for, for people."""

    @abstractmethod
    def missing(self) -> str | None:
        """Name what is not there or not whole and how to get it, in a sentence; None if all is."""

    def fetch(self) -> None:
        """Download the set to where `missing` looks for it."""
        raise UserMistake(self.missing() or "")

    @abstractmethod
    def identity(self) -> Any:
        """Plain data that changes when the files do; must not open them all."""

    @abstractmethod
    def split(self, split: Split) -> NDArray[np.int64]:
        """Numbers of the pictures of a split, ascending."""

    @abstractmethod
    def picture(self, number: int) -> Picture:
        """Read a picture; raises UserMistake if it cannot be read."""

    @abstractmethod
    def label(self, number: int) -> str:
        """Name a picture, for the sentence of an error."""

    def prepare(self) -> None:
        """Make sure that everything is there, by download if that is allowed; or UserMistake."""
        problem = self.missing()
        if problem is None:
            return
        if not self.download:
            raise UserMistake(problem)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.root / ".genbench-download.lock"):
                if self.missing() is not None:
                    self._fetch_patiently()
        except OSError as error:
            raise UserMistake(f"the download failed ({error}). {problem}") from error
        problem = self.missing()
        if problem is not None:
            raise UserMistake(f"the download did not bring all. {problem}")

    def _fetch_patiently(self) -> None:
        """Fetch, with a limit on silence: the standard library would wait for ever."""
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(NETWORK_SECONDS)
        try:
            self.fetch()
        except UserMistake:
            raise
        except Exception as error:  # torchvision and gdown raise what they like
            text = " ".join(str(error).split())[:200]
            raise OSError(text or type(error).__name__) from error
        finally:
            socket.setdefaulttimeout(before)


def part_sizes(count: int, validation: Share, test: Share = 0) -> tuple[int, int, int]:
    """Pictures for training, validation and test out of `count`."""
    sizes = _size(validation, count), _size(test, count)
    train = count - sum(sizes)
    if train < 1 or (validation and not sizes[0]) or (test and not sizes[1]):
        raise UserMistake(
            f"{count} pictures cannot give dataset.validation={validation} and "
            f"dataset.test={test} and leave some for training: add pictures, or set other shares"
        )
    return train, *sizes


def set_aside(count: int, validation: Share, test: Share = 0) -> Parts:
    """Cut 0 .. count - 1 by one fixed permutation: train first, then validation, then test."""
    train, held, _ = part_sizes(count, validation, test)
    order = np.random.RandomState(SPLIT_SEED).permutation(count).astype(np.int64)
    parts = np.split(order, [train, train + held])
    return {split: np.sort(part) for split, part in zip(SPLITS, parts, strict=True)}


def _size(share: Share, count: int) -> int:
    if isinstance(share, bool) or not isinstance(share, int | float) or share < 0:
        raise UserMistake(f"{share!r} is no part of a dataset: give a number or a fraction below 1")
    return int(share) if share >= 1 else round(share * count)


def official(train: int, validation: Share, test: int) -> Parts:
    """Splits of a set whose makers put `test` pictures behind `train`: validation from train."""
    parts = set_aside(train, validation)
    return {**parts, "test": np.arange(train, train + test)}


def signs(names: Iterable[str], folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of files: what changes when they do, without opening them."""
    found = []
    for name in names:
        stat = os.stat(os.path.join(folder, name))
        found.append((name, stat.st_size, stat.st_mtime_ns))
    return found


class Digits(Source):
    """scikit-learn's 1797 handwritten digits, 8 x 8 pixels of 17 levels: E. Alpaydin, 1998.

    1257 to train on and 540 held out, of which `validation` pictures choose and the rest tests.
    """

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self._images: Pixels | None = None

    @property
    def place(self) -> str:
        """A package."""
        return "embedded in scikit-learn"

    def missing(self) -> str | None:
        """Nothing can be."""
        return None

    def identity(self) -> Any:
        """The set never changes."""
        return "sklearn-digits"

    def split(self, split: Split) -> NDArray[np.int64]:
        """1257 / validation / test by the fixed permutation."""
        return set_aside(1797, self.validation or 0, self.test or 0)[split]

    def picture(self, number: int) -> Picture:
        """8 x 8 levels 0 .. 16."""
        if self._images is None:
            from sklearn.datasets import load_digits

            self._images = load_digits().images.astype(np.uint8)
        row: Pixels = self._images[number]
        return row

    def label(self, number: int) -> str:
        """Its number in scikit-learn's order."""
        return f"digit {number}"


class Arrays(Source):
    """A set in a few files that hold arrays: what the four readers below share."""

    title: str
    megabytes: int

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self._parts: Parts | None = None
        self._blocks: list[tuple[int, Pixels]] = []

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The set's own folder."""

    @abstractmethod
    def files(self) -> dict[str, str | None]:
        """Names in `folder` of the files that are needed, with their MD5 where it is known."""

    @abstractmethod
    def read(self) -> tuple[list[Pixels], list[Pixels]]:
        """Arrays of the makers' training and test pictures, (N, H, W) or (N, H, W, C) each."""

    @property
    def place(self) -> str:
        """Its folder."""
        return str(self.folder)

    def missing(self) -> str | None:
        """Look for every file."""
        absent = [name for name in self.files() if not self._found(name)]
        if not absent:
            return None
        return (
            f"{self.title} is not complete: {', '.join(absent)} not found in {self.folder}; "
            f"{self._remedy()}"
        )

    def _found(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def _remedy(self) -> str:
        return (
            f"dataset.download=true fetches it ({self.megabytes} MB, needs the network), or set "
            "paths.data to the folder that has it"
        )

    def identity(self) -> Any:
        """Names, sizes and times of the files."""
        return signs((self._path(name).name for name in self.files()), self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / name

    def split(self, split: Split) -> NDArray[np.int64]:
        """The makers' test split; validation set aside from their training split."""
        if self._parts is None:
            train, test = self._load()
            self._parts = official(train, self.validation or 0, test)
        return self._parts[split]

    def _load(self) -> tuple[int, int]:
        try:
            train, test = self.read()
        except PermissionError as error:
            raise UserMistake(f"{error.filename} cannot be read: change its permissions") from None
        except (OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise UserMistake(self._broken(error)) from error
        start = 0
        for block in [*train, *test]:
            self._blocks.append((start, block))
            start += len(block)
        return sum(map(len, train)), sum(map(len, test))

    def _broken(self, error: Exception) -> str:
        """Find the file that is not what its makers published."""
        for name, md5 in self.files().items():
            path = self._path(name)
            if md5 and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != md5:
                return (
                    f"{path} is damaged or half downloaded (its MD5 is not {md5}): delete it; "
                    f"{self._remedy()}"
                )
        return f"{self.title} in {self.folder} cannot be read ({error}): {self._remedy()}"

    def picture(self, number: int) -> Picture:
        """One row of an array."""
        if not self._blocks:
            self._load()
        start, block = next(item for item in reversed(self._blocks) if item[0] <= number)
        row: Pixels = block[number - start]
        return row

    def label(self, number: int) -> str:
        """Its number, test pictures after training ones."""
        return f"{self.title} picture {number}"


class Idx(Arrays):
    """MNIST (LeCun 1998) and its likes: idx files, plain or gzipped, in `<root>/<folder>/raw`."""

    def __init__(self, torchvision_class: str, title: str, megabytes: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.torchvision_class, self.title, self.megabytes = torchvision_class, title, megabytes

    @property
    def folder(self) -> Path:
        """Where torchvision puts it."""
        return self.root / self.torchvision_class / "raw"

    def files(self) -> dict[str, str | None]:
        """The pictures; labels are not needed."""
        return {"train-images-idx3-ubyte": None, "t10k-images-idx3-ubyte": None}

    def _path(self, name: str) -> Path:
        plain = self.folder / name
        return plain if plain.is_file() else plain.with_name(f"{name}.gz")

    def _found(self, name: str) -> bool:
        return self._path(name).is_file()

    def read(self) -> tuple[list[Pixels], list[Pixels]]:
        """Both files."""
        train, test = (self._read(self._path(name)) for name in self.files())
        return [train], [test]

    def _read(self, path: Path) -> Pixels:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        magic, count, height, width = struct.unpack(">4i", content[:16].ljust(16, b"\0"))
        whole = f"{16 + count * height * width:,}" if magic == 2051 else "an idx header"
        if magic != 2051 or len(content) != 16 + count * height * width:
            raise UserMistake(
                f"{path} is damaged or half downloaded ({len(content):,} bytes, {whole} "
                f"expected): delete it; {self._remedy()}"
            )
        return np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width)

    def fetch(self) -> None:
        """Ask torchvision."""
        _download(self, self.torchvision_class, train=True)


class Cifar(Arrays):
    """CIFAR-10 and CIFAR-100: Krizhevsky 2009; 32 x 32 colour pictures in pickled batches."""

    megabytes = 170

    def __init__(self, torchvision_class: str, title: str, **shared: Any) -> None:
        super().__init__(**shared)
        self.torchvision_class, self.title = torchvision_class, title

    @property
    def folder(self) -> Path:
        """Where torchvision puts it."""
        return self.root / str(_torchvision(self.torchvision_class).base_folder)

    def files(self) -> dict[str, str | None]:
        """The batches with pictures."""
        cifar = _torchvision(self.torchvision_class)
        return dict([*cifar.train_list, *cifar.test_list])

    def read(self) -> tuple[list[Pixels], list[Pixels]]:
        """Training batches and the test batch."""
        blocks = [self._read(self.folder / name) for name in self.files()]
        return blocks[:-1], blocks[-1:]

    def _read(self, path: Path) -> Pixels:
        with path.open("rb") as file:
            rows: Pixels = pickle.load(file, encoding="latin1")["data"]
        return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    def fetch(self) -> None:
        """Ask torchvision."""
        _download(self, self.torchvision_class, train=True)


class Svhn(Arrays):
    """Street View House Numbers, cropped: Netzer et al. 2011; 32 x 32 colour pictures."""

    title, megabytes = "SVHN", 246

    @property
    def folder(self) -> Path:
        """Where torchvision puts it: the root itself."""
        return self.root

    def files(self) -> dict[str, str | None]:
        """Two MATLAB files."""
        listed = _torchvision("SVHN").split_list
        return {listed[split][1]: listed[split][2] for split in ("train", "test")}

    def read(self) -> tuple[list[Pixels], list[Pixels]]:
        """Both files, by SciPy."""
        loadmat = importlib.import_module("scipy.io").loadmat  # late: SciPy takes a second
        train, test = (
            loadmat(self.folder / name)["X"].transpose(3, 0, 1, 2) for name in self.files()
        )
        return [train], [test]

    def fetch(self) -> None:
        """Ask torchvision, a file at a time."""
        for split in ("train", "test"):
            _download(self, "SVHN", split=split)


class Stl10(Arrays):
    """STL-10: Coates et al. 2011; 96 x 96. Train = the unlabelled 100 000 and the 5000 of train."""

    title, megabytes = "STL-10", 2640

    @property
    def folder(self) -> Path:
        """Where torchvision puts it."""
        return self.root / "stl10_binary"

    def files(self) -> dict[str, str | None]:
        """Three binary files."""
        stl10 = _torchvision("STL10")
        listed = dict([*stl10.train_list, *stl10.test_list])
        return {name: md5 for name, md5 in listed.items() if name.endswith("_X.bin")}

    def read(self) -> tuple[list[Pixels], list[Pixels]]:
        """Memory-mapped, since they are 3 GB; stored by colour and column."""
        blocks = {
            name: np.memmap(self.folder / name, np.uint8, "r")
            .reshape(-1, 3, 96, 96)
            .transpose(0, 3, 2, 1)
            for name in self.files()
        }
        return [blocks["unlabeled_X.bin"], blocks["train_X.bin"]], [blocks["test_X.bin"]]

    def fetch(self) -> None:
        """Ask torchvision."""
        _download(self, "STL10", split="train")


def _torchvision(name: str) -> Any:
    """Import late: only a set that is not cached yet needs it, and it takes a second."""
    import torchvision

    return getattr(torchvision.datasets, name)


def _download(source: Arrays, torchvision_class: str, **arguments: Any) -> None:
    say(f"downloading {source.title} ({source.megabytes} MB) to {source.root}")
    _torchvision(torchvision_class)(source.root, download=True, **arguments)
