"""Files below a root, which is a folder or a zip that is read as it is, without unpacking."""

import io
import lzma
import os
import struct
import threading
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from genbench.data.source import signatures
from genbench.errors import Notice

ENCRYPTED = 1  # bit of a zip entry's flags

METHODS = (  # Windows packs files above 2 GB by another, Deflate64
    *(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA),
    *([zipfile.ZIP_ZSTANDARD] if hasattr(zipfile, "ZIP_ZSTANDARD") else []),  # from Python 3.14 on
)

NO_ZIP = (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error)

DAMAGED = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
)


class Files(ABC):
    """The files below `root`, each by its path relative to it, with forward slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def problem(self) -> str | None:
        """A sentence on why nothing can be read; None if something can."""

    @abstractmethod
    def names(self) -> list[str]:
        """All files, sorted; no hidden ones. Raises UserMistake."""

    @abstractmethod
    def has_folder(self, name: str) -> bool:
        """Whether there is such a folder directly below the root."""

    @abstractmethod
    def open(self, name: str) -> str | io.BytesIO:
        """A file's path, or its content. Raises OSError if that is damaged."""

    @abstractmethod
    def label(self, name: str) -> str:
        """A file's name for error messages."""

    @abstractmethod
    def signatures(self, names: Iterable[str]) -> list[tuple[str, int, int]]:
        """Name, size in bytes and something that changes with the content, without reading that."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none of that name. Raises OSError."""
        if name not in self.names():
            return None
        opened = self.open(name)
        return Path(opened).read_bytes() if isinstance(opened, str) else opened.getvalue()


class Directory(Files):
    """A folder with its subfolders; links are followed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._names: list[str] | None = None

    def problem(self) -> str | None:
        """Look for the folder."""
        if self.root.is_dir():
            return None
        return (
            f"dataset.root={self.root} is not a folder or a zip that exists: give the one with your "
            "pictures"
        )

    def names(self) -> list[str]:
        """All files, sorted; none that is hidden or lies in a hidden folder, none twice through a link."""
        if self._names is None:
            self._names = sorted(name for name in self._walk() if _is_shown(name))
        return self._names

    def _walk(self) -> Iterator[str]:
        """Files below the root, by links to folders elsewhere too; each folder once.

        A link back into the root, or to a folder above it, would bring the same pictures under other
        names, and so into other splits.
        """
        root = os.path.realpath(self.root)
        met, again = {root}, []
        for folder, below, names in os.walk(self.root, followlinks=True):
            kept = []
            for name in sorted(below):
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    target = os.path.realpath(path)
                    if target in met or os.path.commonpath([root, target]) in (root, target):
                        again.append(os.path.relpath(path, self.root))
                        continue
                    met.add(target)
                kept.append(name)
            below[:] = kept
            yield from (Path(folder, name).relative_to(self.root).as_posix() for name in names)
        if again:
            more = f" (and {len(again) - 1:,} more)" if len(again) > 1 else ""
            warnings.warn(
                f"dataset.root={self.root}: the link {again[0]}{more} leads to a folder that is read "
                "anyway, and is left out: else its pictures would count twice, in different splits",
                Notice,
                stacklevel=2,
            )

    def has_folder(self, name: str) -> bool:
        """Look for it."""
        return (self.root / name).is_dir()

    def open(self, name: str) -> str:
        """Its path; pathlib would take a tenth of the time of decoding."""
        return os.path.join(self.root, name)

    def label(self, name: str) -> str:
        """Its path below the root."""
        return name

    def signatures(self, names: Iterable[str]) -> list[tuple[str, int, int]]:
        """Names, sizes and modification times."""
        return signatures(names, self.root)


class Archive(Files):
    """A zip file, which several threads may read at once; each process opens it anew.

    If everything in it lies in one folder, and that is not named in `kept`, this folder is the root: so
    are zips made of a folder. Hidden files, and the folder __MACOSX that macOS adds, are left out.
    """

    def __init__(self, root: Path, kept: Iterable[str] = ()) -> None:
        super().__init__(root)
        self.kept = frozenset(kept)
        self._entries: dict[str, zipfile.ZipInfo] | None = None
        self._opened: tuple[int, zipfile.ZipFile] | None = None  # with the id of the process
        self._opening = threading.Lock()

    def problem(self) -> str | None:
        """Read the table of contents; look for a password, and for other methods of compression."""
        try:
            entries = self.entries()
        except OSError as error:
            return f"dataset.root={self.root} cannot be read ({error.strerror or error})"
        except NO_ZIP as error:
            return (
                f"dataset.root={self.root} is neither a folder nor a readable zip ({error}): get it "
                "again if it is half downloaded, or unpack it and give the folder"
            )
        for name, info in entries.items():
            why = f"{name} needs a password" if info.flag_bits & ENCRYPTED else ""
            if info.compress_type not in METHODS:
                why = (
                    f"{name} is compressed by method {info.compress_type}, which Python cannot read"
                )
            if why:
                return (
                    f"dataset.root={self.root} cannot be read as it is ({why}): unpack it and give "
                    "the folder, or make a plain zip of it"
                )
        return None

    def entries(self) -> dict[str, zipfile.ZipInfo]:
        """Entries that are files, by name below the root. Raises OSError or one of NO_ZIP."""
        if self._entries is None:
            # some programs for Windows write backslashes
            found = {info.filename.replace("\\", "/"): info for info in self._zip().infolist()}
            files = {name: info for name, info in found.items() if _is_shown(name)}
            top = self._top(files)
            self._entries = {name[len(top) :]: info for name, info in sorted(files.items())}
        return self._entries

    def _top(self, names: Iterable[str]) -> str:
        """The folder that holds everything, with its slash; empty if there is none."""
        tops = {name.partition("/")[0] if "/" in name else "" for name in names}
        top = tops.pop() if len(tops) == 1 else ""
        return f"{top}/" if top and top not in self.kept else ""

    def _zip(self) -> zipfile.ZipFile:
        """The file as this process opened it: a forked one must not share its position."""
        with self._opening:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = os.getpid(), zipfile.ZipFile(self.root)
            return self._opened[1]

    def names(self) -> list[str]:
        """All files, sorted."""
        return list(self.entries())

    def has_folder(self, name: str) -> bool:
        """Look for a file in it."""
        return any(entry.startswith(f"{name}/") for entry in self.entries())

    def open(self, name: str) -> io.BytesIO:
        """Its content; checked by the zip's own checksum."""
        try:
            return io.BytesIO(self._zip().read(self.entries()[name]))
        except DAMAGED as error:
            raise OSError(str(error) or type(error).__name__) from error

    def label(self, name: str) -> str:
        """Its name in the zip."""
        return f"{self.entries()[name].filename} in {self.root.name}"

    def signatures(self, names: Iterable[str]) -> list[tuple[str, int, int]]:
        """Names, sizes and CRC-32 from the table of contents: a copied zip is the same data."""
        entries = self.entries()
        return [(name, entries[name].file_size, entries[name].CRC) for name in names]


def _is_shown(name: str) -> bool:
    """Whether this is a file's name, neither hidden nor in a hidden folder nor added by macOS."""
    parts = name.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return bool(parts[-1]) and not hidden and "__MACOSX" not in parts


def open_files(root: Path, kept: Iterable[str] = ()) -> Files:
    """The files of a folder, or of a zip (or what should be one) if `root` is a file.

    `kept` are folders of a zip that are no mere wrapping.
    """
    return Archive(root, kept) if root.is_file() else Directory(root)
