"""What a source of pictures must offer: numbered pictures in three splits, and how to get them."""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genbench.data.attributes import Attributes
from genbench.data.attributes import of_factors as attributes_of_factors
from genbench.data.cache import locked
from genbench.data.classes import Classes
from genbench.data.contract import Split
from genbench.data.factors import Factors, of_classes
from genbench.data.splits import Amount
from genbench.data.transform import Picture
from genbench.errors import UserMistake

NETWORK_SECONDS = 30  # without a byte, after which a download is given up


class Source(ABC):
    """Pictures in three splits that depend on the files alone.

    `root` is the folder to look in; `download` permits fetching what is missing. `validation` and
    `test` are the amounts to set aside; None if the set has official splits.
    """

    def __init__(
        self, root: Path | None, download: bool, validation: Amount | None, test: Amount | None
    ) -> None:
        self.given_root, self.download = root, download
        self.validation, self.test = validation, test

    @property
    def root(self) -> Path:
        """The folder that contains the dataset's own folder. Raises UserMistake if it is not set."""
        if self.given_root is None:
            raise UserMistake("dataset.root is not set: give the folder that holds the pictures")
        return self.given_root

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the pictures are looked for, as shown to users."""

    @abstractmethod
    def missing(self) -> str | None:
        """A sentence on what is missing or incomplete and how to get it; None if nothing is."""

    def fetch(self) -> None:
        """Download the set to where `missing` looks for it."""
        raise UserMistake(self.missing() or "")

    @abstractmethod
    def identity(self) -> Any:
        """Plain data (JSON) that changes when the files do; cheap: must not open every file."""

    @abstractmethod
    def split(self, split: Split) -> NDArray[np.int64]:
        """Numbers of the pictures of a split, (N,), ascending."""

    @abstractmethod
    def picture(self, number: int) -> Picture:
        """Read a picture. Raises UserMistake if it cannot be read."""

    @abstractmethod
    def label(self, number: int) -> str:
        """Name of a picture for error messages."""

    def classes(self) -> Classes | None:
        """Classes of all pictures; None where none are read. Raises UserMistake if they are wrong."""
        return None

    def factors(self) -> Factors | None:
        """What is known of all pictures, by number; classes are one factor. None if nothing is."""
        classes = self.classes()
        return None if classes is None else of_classes(classes)

    def attributes(self) -> Attributes | None:
        """Attributes of all pictures, by number; the values of several factors are such. None if none are known."""
        factors = self.factors()
        return None if factors is None else attributes_of_factors(factors)

    def prepare(self) -> None:
        """Make sure that everything is there, by download if permitted. Raises UserMistake."""
        problem = self.missing()
        if problem is None:
            return
        if not self.download:
            raise UserMistake(problem)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.root / ".genbench-download.lock"):
                if self.missing() is not None:
                    self._fetch_with_timeout()
        except OSError as error:
            raise UserMistake(f"the download failed ({error}). {problem}") from error
        problem = self.missing()
        if problem is not None:
            raise UserMistake(f"the download did not bring all. {problem}")

    def _fetch_with_timeout(self) -> None:
        """Fetch with a socket timeout, of which the standard library has none by default."""
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(NETWORK_SECONDS)
        try:
            self.fetch()
        except UserMistake:
            raise
        except Exception as error:  # torchvision and gdown raise many types
            text = " ".join(str(error).split())[:200]
            raise OSError(text or type(error).__name__) from error
        finally:
            socket.setdefaulttimeout(before)


def signatures(names: Iterable[str], folder: Path) -> list[tuple[str, int, int]]:
    """Name, size in bytes and modification time in ns of files, without opening them."""
    found = []
    for name in names:
        stat = os.stat(os.path.join(folder, name))
        found.append((name, stat.st_size, stat.st_mtime_ns))
    return found
