"""Datasets with one file or database entry per picture: a user's folder or zip, CelebA, LSUN."""

import hashlib
import importlib.util
import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from genbench.data.archive import Files, open_files
from genbench.data.attributes import Attributes, listed_attributes
from genbench.data.cache import say
from genbench.data.classes import LISTED, Classes, by_folder, by_list, listed
from genbench.data.contract import Split
from genbench.data.source import Source, signatures
from genbench.data.splits import SPLITS, SplitIndices, misread_folders, part_sizes, set_aside
from genbench.data.transform import Picture
from genbench.errors import Notice, UserMistake

OWN_SPLITS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}

NO_PICTURES = {
    "BUFR",
    "GRIB",
    "HDF5",
    "MPEG",
}  # PIL knows such files without being able to decode them


def open_picture(file: str | io.BytesIO, label: str, hint: str) -> Image.Image:
    """Decode a picture, rotated by its EXIF orientation. Raises UserMistake, which ends with `hint`."""
    try:
        with Image.open(file) as opened:
            opened.load()
            return ImageOps.exif_transpose(opened)
    except PermissionError:
        raise UserMistake(f"{label} cannot be read: change its permissions; {hint}") from None
    except FileNotFoundError:
        raise UserMistake(f"{label} is not there any more: restore or remove it; {hint}") from None
    except UnidentifiedImageError:
        raise UserMistake(f"{label} is not a picture: remove it; {hint}") from None
    except Image.DecompressionBombError:
        raise UserMistake(
            f"{label} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, too many to be "
            f"decoded: make it smaller or remove it; {hint}"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserMistake(damaged(label, error, hint)) from error


def damaged(label: str, error: Exception, hint: str) -> str:
    """A sentence on a picture that cannot be decoded."""
    return f"{label} is a damaged picture ({error}): replace or remove it; {hint}"


class Folder(Source):
    """A user's own pictures below `root`, a folder or a zip, in any format that PIL reads.

    If a subfolder train exists, subfolders named after splits are the splits. Other splits are set
    aside from train in the order of the hash of each picture's name, so that pictures added later move
    few others to another split, and no class is favoured.
    """

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self._below: Files | None = None
        self._files: list[str] | None = None
        self._parts: SplitIndices | None = None

    @property
    def place(self) -> str:
        """The folder or zip itself."""
        return str(self.given_root) if self.given_root else "dataset.root=..."

    @property
    def below(self) -> Files:
        """All files below the root."""
        if self._below is None:
            self._below = open_files(self.root, kept=OWN_SPLITS)
        return self._below

    def missing(self) -> str | None:
        """Check the folder or zip, that it has pictures, and a zip's labels."""
        if self.given_root is None:
            return (
                "dataset=image-folder needs dataset.root=...: the folder or zip with your pictures"
            )
        problem = self.below.problem()
        if problem is not None:
            return problem
        if not self.files():
            return self._empty()
        if not self.root.is_dir():  # a folder's are checked when used: it may be of an earlier run
            try:
                self.classes()
            except UserMistake as error:
                return str(error)
        return None

    def _empty(self) -> str:
        zips = [name for name in self.below.names() if name.lower().endswith(".zip")]
        if zips:
            remedy = f"give dataset.root={self.root / zips[0]}, a zip is read as it is"
            remedy = remedy if self.root.is_dir() else "unpack the outer zip"
            return f"dataset.root={self.root} has no pictures but {zips[0]}: {remedy}"
        return (
            f"dataset.root={self.root} has no pictures: it and its subfolders hold no file "
            "with an ending such as .png, .jpg or .webp"
        )

    def prepare(self) -> None:
        """Check only: there is nothing to download from. Raises UserMistake."""
        problem = self.missing()
        if problem is not None:
            raise UserMistake(problem)

    def files(self) -> list[str]:
        """Paths of all pictures relative to the root, with forward slashes, sorted."""
        if self._files is None:
            Image.init()
            kinds, known = Image.OPEN.keys() - NO_PICTURES, Image.registered_extensions()
            endings = tuple(ending for ending, kind in known.items() if kind in kinds)
            self._files = [name for name in self.below.names() if name.lower().endswith(endings)]
        return self._files

    def identity(self) -> Any:
        """Signatures of all pictures."""
        try:
            return self.below.signatures(self.files())
        except OSError as error:
            raise UserMistake(
                f"{error.filename} cannot be read ({error.strerror}): restore or remove it"
            ) from None

    def split(self, split: Split) -> NDArray[np.int64]:
        """By subfolder, otherwise by hash."""
        if self._parts is None:
            self._parts = self._split()
        return self._parts[split]

    def _split(self) -> SplitIndices:
        names = self.files()
        given: dict[Split, list[int]] = {split: [] for split in SPLITS}
        divided = self.below.has_folder("train")
        if said := misread_folders(names, OWN_SPLITS, divided):
            warnings.warn(f"dataset.root={self.root}: {said}", Notice, stacklevel=2)
        if divided:
            for number, name in enumerate(names):
                given[OWN_SPLITS.get(name.split("/")[0], "train")].append(number)
        else:
            given["train"] = list(range(len(names)))
        train, validation, _ = part_sizes(
            len(given["train"]),
            0 if given["validation"] else self.validation or 0,
            0 if given["test"] else self.test or 0,
        )
        by_hash = sorted(given["train"], key=lambda number: _hash(names[number]))
        given["train"] = by_hash[:train]
        given["validation"] += by_hash[train : train + validation]
        given["test"] += by_hash[train + validation :]
        return {split: np.array(sorted(numbers), np.int64) for split, numbers in given.items()}

    def classes(self) -> Classes | None:
        """By dataset.json, or else by folder. Raises UserMistake for a list that does not match."""
        files = self.files()
        try:
            content = self.below.read(LISTED)
        except OSError as error:
            raise UserMistake(f"{LISTED} is damaged ({error}): replace or remove it") from error
        if content is not None:
            where = self.below.label(LISTED)
            there, pairs = listed(content, where)
            if there:
                return by_list(pairs, files, where)
        return by_folder(files, OWN_SPLITS if self.below.has_folder("train") else ())

    def picture(self, number: int) -> Picture:
        """Decode a file."""
        hint = f"`genbench data check image-folder dataset.root={self.root}` finds all such files"
        label = self.label(number)
        try:
            file = self.below.open(self.files()[number])
        except OSError as error:
            raise UserMistake(damaged(label, error, hint)) from error
        return open_picture(file, label, hint)

    def label(self, number: int) -> str:
        """Its path below the root, or in the zip."""
        return self.below.label(self.files()[number])


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


class CelebA(Source):
    """CelebA, aligned: Liu et al. 2015; 202 599 faces of 178 x 218 in the official splits.

    Reads `<root>/celeba`: the folder img_align_celeba, and list_eval_partition.txt or the .csv of that
    name in Kaggle's copy.
    """

    MANUALLY = (
        "get img_align_celeba.zip and list_eval_partition.txt from "
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (Google Drive or Baidu) or "
        "https://www.kaggle.com/datasets/jessicali9530/celeba-dataset, put both into {folder} and "
        "unzip the pictures there; dataset.download=true tries it for you (1.4 GB, needs "
        "`pip install gdown`, and Google Drive often refuses for a day when its quota is spent)"
    )

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self._names: list[str] | None = None
        self._splits: NDArray[np.int64] | None = None

    @property
    def folder(self) -> Path:
        """Where torchvision puts it."""
        return self.root / "celeba"

    @property
    def place(self) -> str:
        """Its folder."""
        return str(self.folder)

    @property
    def pictures(self) -> Path:
        """The folder with the pictures; in Kaggle's copy it is nested in one of the same name."""
        outer = self.folder / "img_align_celeba"
        inner = outer / "img_align_celeba"
        return inner if inner.is_dir() else outer

    def missing(self) -> str | None:
        """Check the list, the folder and every picture that the list names."""
        manually = self.MANUALLY.format(folder=self.folder)
        if self._list() is None:
            return f"CelebA is not in {self.folder} (no list_eval_partition.txt): {manually}"
        if not self.pictures.is_dir():
            zipped = self.folder / "img_align_celeba.zip"
            if zipped.is_file():
                return f"the pictures of CelebA are still packed: unzip {zipped} where it lies"
            return f"CelebA is not complete (no folder {self.pictures}): {manually}"
        there = set(os.listdir(self.pictures))
        absent = [name for name in self.names() if name not in there]
        if absent:
            return (
                f"{len(absent):,} of {len(self.names()):,} pictures of CelebA are missing from "
                f"{self.pictures}, {absent[0]} the first: unzip img_align_celeba.zip again"
            )
        return None

    def _list(self, name: str = "list_eval_partition") -> Path | None:
        """The file that assigns pictures to splits, or another list, if there is one."""
        places = [self.folder / f"{name}.{ending}" for ending in ("txt", "csv")]
        return next((place for place in places if place.is_file()), None)

    def attributes(self) -> Attributes | None:
        """The 40 of list_attr_celeba.txt or .csv, where it lies beside the other list."""
        listed = self._list("list_attr_celeba")
        return None if listed is None else listed_attributes(listed, self.names())

    def names(self) -> list[str]:
        """File names in the order of the list. Raises UserMistake if it is damaged."""
        if self._names is None:
            listed = self._list()
            assert listed is not None
            rows = re.findall(r"^(\S+?\.jpg)[ ,]+([012])\s*$", listed.read_text(), re.MULTILINE)
            if not rows:
                raise UserMistake(
                    f"{listed} lists no pictures: it is damaged or half downloaded, get it again"
                )
            self._names = [name for name, _ in rows]
            self._splits = np.array([int(split) for _, split in rows])
        return self._names

    def fetch(self) -> None:
        """Download by torchvision from Google Drive."""
        from torchvision.datasets import CelebA as Torchvision

        say(f"downloading CelebA (1.4 GB) to {self.folder}")
        Torchvision(self.root, download=True)

    def identity(self) -> Any:
        """Signatures of the list and the folder alone: those of 200 000 files would take seconds."""
        listed = self._list()
        assert listed is not None
        return [*signatures([listed.name, "img_align_celeba"], self.folder), len(self.names())]

    def split(self, split: Split) -> NDArray[np.int64]:
        """The official splits."""
        self.names()
        assert self._splits is not None
        return np.flatnonzero(self._splits == SPLITS.index(split)).astype(np.int64)

    def picture(self, number: int) -> Picture:
        """Decode a file."""
        hint = "`genbench data check celeba` finds all such files, img_align_celeba.zip has them"
        file = os.path.join(self.pictures, self.names()[number])
        return open_picture(file, self.label(number), hint)

    def label(self, number: int) -> str:
        """Its file name."""
        return self.names()[number]


class Lsun(Source):
    """A category of LSUN: Yu et al. 2015; an LMDB of WebP pictures, shorter side 256.

    The official validation set has 300 pictures, too few for a Frechet distance: validation and test
    are set aside from the official training set.
    """

    def __init__(self, category: str, **shared: Any) -> None:
        super().__init__(**shared)
        self.category = category
        self._keys: list[bytes] | None = None
        self._open: tuple[int, Any] | None = (
            None  # process id and database: LMDB must not be used across a fork
        )

    @property
    def folder(self) -> Path:
        """Where the official script unpacks it."""
        return self.root / f"{self.category}_train_lmdb"

    @property
    def place(self) -> str:
        """Its folder."""
        return str(self.folder)

    def missing(self) -> str | None:
        """Check the database and the package that reads it."""
        if not (self.folder / "data.mdb").is_file():
            return (
                f"LSUN {self.category} is not in {self.folder} (no data.mdb): download "
                f"{self.category}_train_lmdb.zip with the official script "
                "(https://github.com/fyu/lsun, 43 GB for bedroom) and unzip it into "
                f"{self.root}, or set paths.data to the folder that has it; reading it needs "
                "`pip install 'genbench[lsun]'`"
            )
        if importlib.util.find_spec("lmdb") is None:
            return "LSUN needs the package lmdb to be read: run `pip install 'genbench[lsun]'`"
        return None

    def prepare(self) -> None:
        """Check only: there is no automatic download. Raises UserMistake."""
        problem = self.missing()
        if problem is not None:
            raise UserMistake(problem)

    def _database(self) -> Any:
        """The open database of this process. Raises UserMistake."""
        if self._open is None or self._open[0] != os.getpid():
            lmdb = importlib.import_module("lmdb")
            try:
                database = lmdb.open(str(self.folder), readonly=True, lock=False, readahead=False)
            except lmdb.Error as error:
                raise UserMistake(
                    f"{self.folder} is no readable LMDB ({error}): unzip it again"
                ) from error
            self._open = os.getpid(), database
        return self._open[1]

    def keys(self) -> list[bytes]:
        """Keys of all pictures, sorted as LMDB keeps them."""
        if self._keys is None:
            with self._database().begin() as transaction:
                self._keys = list(transaction.cursor().iternext(keys=True, values=False))
        return self._keys

    def identity(self) -> Any:
        """Signature of the database file."""
        return signatures(["data.mdb"], self.folder)

    def split(self, split: Split) -> NDArray[np.int64]:
        """By the fixed permutation."""
        return set_aside(len(self.keys()), self.validation or 0, self.test or 0)[split]

    def picture(self, number: int) -> Picture:
        """Decode an entry."""
        with self._database().begin() as transaction:
            content: bytes = transaction.get(self.keys()[number])
        hint = "`genbench data check lsun` finds all such pictures"
        return open_picture(io.BytesIO(content), self.label(number), hint)

    def label(self, number: int) -> str:
        """Its key."""
        return f"LSUN picture {self.keys()[number].decode(errors='replace')}"
