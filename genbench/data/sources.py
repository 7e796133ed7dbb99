"""Datasets that are read as arrays: scikit-learn's digits, MNIST and its likes, CIFAR, SVHN, STL-10.

torchvision knows addresses and checksums and does the downloading; the files are read here, so that
an error can name the file that is missing or truncated.
"""

import gzip
import hashlib
import importlib
import pickle
import struct
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.data.cache import say
from genbench.data.classes import Classes, named
from genbench.data.contract import Split
from genbench.data.source import Source, signatures
from genbench.data.splits import SplitIndices, official, set_aside
from genbench.data.transform import Picture
from genbench.errors import UserMistake

Pixels = NDArray[np.uint8]


class Digits(Source):
    """scikit-learn's 1797 handwritten digits, 8 x 8 pixels of 17 levels: E. Alpaydin, 1998.

    `validation` and `test` pictures are set aside, the rest is for training.
    """

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self._images: Pixels | None = None

    @property
    def place(self) -> str:
        """Part of a package."""
        return "embedded in scikit-learn"

    def missing(self) -> str | None:
        """Never missing."""
        return None

    def identity(self) -> Any:
        """The set never changes."""
        return "sklearn-digits"

    def split(self, split: Split) -> NDArray[np.int64]:
        """By the fixed permutation."""
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

    def classes(self) -> Classes:
        """The ten digits."""
        from sklearn.datasets import load_digits

        return named(load_digits().target)


class Arrays(Source):
    """A dataset in a few files of arrays: what the readers below share."""

    title: str
    megabytes: int

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self._parts: SplitIndices | None = None
        self._blocks: list[tuple[int, Pixels]] = []

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The dataset's own folder."""

    @abstractmethod
    def files(self) -> dict[str, str | None]:
        """Names in `folder` of the files that are needed, with their MD5 if it is known."""

    @abstractmethod
    def read(self) -> tuple[list[Pixels], list[Pixels]]:
        """Arrays of the official training and test pictures, (N, H, W) or (N, H, W, C) each."""

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
        return signatures((self._path(name).name for name in self.files()), self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / name

    def split(self, split: Split) -> NDArray[np.int64]:
        """The official test split; validation set aside from the official training split."""
        if self._parts is None:
            train, test = self._load()
            self._parts = official(train, self.validation or 0, test)
        return self._parts[split]

    def _load(self) -> tuple[int, int]:
        """Read all arrays; numbers of official training and test pictures. Raises UserMistake."""
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
        """A sentence that names the damaged file, found by its MD5, and the remedy."""
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
    """MNIST (LeCun et al. 1998) and its likes: idx files, plain or gzipped, in `<root>/<class>/raw`."""

    def __init__(self, torchvision_class: str, title: str, megabytes: int, **shared: Any) -> None:
        super().__init__(**shared)
        _check_name(torchvision_class)
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

    def classes(self) -> Classes | None:
        """The classes of the label files beside the pictures; None if they are not there."""
        paths = [self._path(f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")]
        if not all(path.is_file() for path in paths):
            return None
        labels = [np.frombuffer(_unpacked(path), np.uint8, offset=8) for path in paths]
        return named(np.concatenate(labels).tolist())

    def _read(self, path: Path) -> Pixels:
        content = _unpacked(path)
        magic, count, height, width = struct.unpack(">4i", content[:16].ljust(16, b"\0"))
        whole = f"{16 + count * height * width:,}" if magic == 2051 else "an idx header"
        if magic != 2051 or len(content) != 16 + count * height * width:
            raise UserMistake(
                f"{path} is damaged or half downloaded ({len(content):,} bytes, {whole} "
                f"expected): delete it; {self._remedy()}"
            )
        return np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width)

    def fetch(self) -> None:
        """Download by torchvision."""
        _download(self, self.torchvision_class, train=True)


class ArraysOnly(pickle.Unpickler):
    """Reads pickles of numpy's arrays and of plain values, and refuses what would call anything else."""

    CALLED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),  # bytes, in the oldest protocols
    )

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names; UnpicklingError if that is not one of `CALLED`."""
        if (module, name) not in self.CALLED:
            raise pickle.UnpicklingError(f"it would call {module}.{name}, which no array needs")
        return super().find_class(module, name)


class Cifar(Arrays):
    """CIFAR-10 and CIFAR-100: Krizhevsky 2009; 32 x 32 colour pictures in pickled batches."""

    megabytes = 170

    def __init__(self, torchvision_class: str, title: str, **shared: Any) -> None:
        super().__init__(**shared)
        _check_name(torchvision_class)
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
        rows: Pixels = self._loaded(path)["data"]
        return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    def classes(self) -> Classes | None:
        """The labels in the batches, with the names in the meta file beside them; None if one is not there."""
        meta = self.folder / str(_torchvision(self.torchvision_class).meta["filename"])
        if self.missing() is not None or not meta.is_file():
            return None
        key = "fine_labels" if self.torchvision_class == "CIFAR100" else "labels"
        names = self._loaded(meta)[key.replace("labels", "label_names")]
        labels = [self._loaded(self.folder / name)[key] for name in self.files()]
        return Classes(np.concatenate(labels).astype(np.int64), tuple(map(str, names)))

    @staticmethod
    def _loaded(path: Path) -> Any:
        with path.open("rb") as file:
            return ArraysOnly(file, encoding="latin1").load()

    def fetch(self) -> None:
        """Download by torchvision."""
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
        train, test = (array.transpose(3, 0, 1, 2) for array in self._arrays("X"))
        return [train], [test]

    def classes(self) -> Classes | None:
        """The digits, whose 0 is a 10 in the files; None where these are not there."""
        if self.missing() is not None:
            return None
        return named([int(label) % 10 for array in self._arrays("y") for label in array.ravel()])

    def _arrays(self, key: str) -> list[Any]:
        loadmat = importlib.import_module("scipy.io").loadmat  # imported late: SciPy takes a second
        return [loadmat(self.folder / name, variable_names=[key])[key] for name in self.files()]

    def fetch(self) -> None:
        """Download by torchvision, one split at a time."""
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
        """Memory-mapped, because they have 3 GB; stored as (N, C, W, H)."""
        blocks = {
            name: np.memmap(self.folder / name, np.uint8, "r")
            .reshape(-1, 3, 96, 96)
            .transpose(0, 3, 2, 1)
            for name in self.files()
        }
        return [blocks["unlabeled_X.bin"], blocks["train_X.bin"]], [blocks["test_X.bin"]]

    def fetch(self) -> None:
        """Download by torchvision."""
        _download(self, "STL10", split="train")


def _unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _torchvision(name: str) -> Any:
    """A dataset class of torchvision, imported late: takes a second, needed if nothing is cached."""
    import torchvision

    found = getattr(torchvision.datasets, name, None)
    if found is None:
        raise UserMistake(
            f"torchvision has no dataset {name}: see dataset.source.torchvision_class"
        )
    return found


def _check_name(torchvision_class: Any) -> None:
    if not isinstance(torchvision_class, str):
        raise UserMistake(
            f"dataset.source.torchvision_class={torchvision_class} is not the name of a dataset of "
            "torchvision: MNIST, CIFAR10, ..."
        )


def _download(source: Arrays, torchvision_class: str, **arguments: Any) -> None:
    say(f"downloading {source.title} ({source.megabytes} MB) to {source.root}")
    _torchvision(torchvision_class)(source.root, download=True, **arguments)
