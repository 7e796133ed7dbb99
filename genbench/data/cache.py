"""Decoded pictures on disk: one folder per split with `pixels.npy` (N, C, H, W) and `card.json`.

A folder is created atomically: it is built under a temporary name and renamed. If two processes need
the same one, the second waits for the first. On a file system without locks both build it, and the
second uses what the first has renamed.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genbench.errors import GenbenchError, UserMistake

VERSION = 1  # of the layout and of what `Transform` computes: a change rebuilds every cache

VERIFIED_BYTES = 64 << 20  # smaller files are hashed whenever they are opened: 0.1 s at most

BLOCK = 4096  # pictures decoded between two updates of the progress bar

PORTION = 64  # pictures per task of a thread: starting a task costs as much as one small picture

ABANDONED_SECONDS = 86_400  # age from which a temporary folder is taken for that of a killed build

Shape = tuple[int, int, int, int]


class Damaged(Exception):
    """A cache folder whose content does not match its card."""


def say(text: str) -> None:
    """Print a message about slow work to stderr."""
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(text)


def read(
    folder: Path, verify: bool | None = None
) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
    """Open a cache folder: memory-mapped pixels and card; None if there is none.

    `verify` compares the pixels with the card's sha256; None does so for small files only. Raises
    Damaged if something is missing, truncated or altered, UserMistake if reading is not permitted.
    """
    if not folder.is_dir():
        return None
    try:
        card = json.loads((folder / "card.json").read_text())
        pixels: NDArray[np.uint8] = np.load(folder / "pixels.npy", mmap_mode="r")
        if list(pixels.shape) != card["shape"] or pixels.dtype != np.uint8:
            raise Damaged(f"{folder}: pixels of shape {pixels.shape}, {card['shape']} expected")
    except PermissionError as error:
        raise UserMistake(f"{folder} cannot be read ({error.strerror}): set paths.cache") from None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise Damaged(f"{folder}: {error}") from error
    if verify or (verify is None and pixels.nbytes <= VERIFIED_BYTES):
        found = hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
        if found != card["fingerprint"]:
            raise Damaged(f"{folder}: sha256 of the pixels is {found[:12]}, not the card's")
    return pixels, card


def read_or_none(folder: Path) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
    """Open a cache folder; None if it is not there or damaged, which is reported on stderr."""
    try:
        return read(folder)
    except Damaged as error:
        say(f"the cache is damaged and will be built again: {error}")
        return None


def build(
    folder: Path, shape: Shape, decode: Callable[[int], NDArray[np.uint8]], label: str
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Make a cache folder from `decode(0)` .. `decode(N - 1)`, unless another process just did.

    Returns memory-mapped pixels and card. Raises GenbenchError or UserMistake if the disk is full or
    read-only.
    """
    with _disk_troubles(folder, int(np.prod(shape))):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            try:
                found = read(folder)
            except Damaged:
                found = None
                shutil.rmtree(folder)
            return found or _build(folder, shape, decode, label)


def _build(
    folder: Path, shape: Shape, decode: Callable[[int], NDArray[np.uint8]], label: str
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    _remove_abandoned(folder.parent)
    _ask_for_room(folder.parent, int(np.prod(shape)))
    partial = Path(tempfile.mkdtemp(prefix=f".partial-{folder.name}-", dir=folder.parent))
    try:
        fingerprint = _decode_all(partial / "pixels.npy", shape, decode, label)
        card = {"fingerprint": fingerprint, "shape": list(shape), "version": VERSION}
        (partial / "card.json").write_text(json.dumps(card, indent=1) + "\n")
        partial.chmod(0o755)  # mkdtemp's 0700 would lock out others who share the cache
        try:
            partial.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    built = read(folder, verify=False)
    assert built is not None
    return built


def _decode_all(
    path: Path, shape: Shape, decode: Callable[[int], NDArray[np.uint8]], label: str
) -> str:
    """Decode into `path` with all cores; returns the sha256 of the pixels in index order."""

    def decode_portion(rows: range) -> NDArray[np.uint8]:
        return np.ascontiguousarray(np.stack([decode(i) for i in rows]))

    sha256 = hashlib.sha256()
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress() as bar:
        task = bar.add_task(f"decoding {label}", total=len(pixels))
        for start in range(0, len(pixels), BLOCK):
            rows = range(start, min(start + BLOCK, len(pixels)))
            portions = [rows[i : i + PORTION] for i in range(0, len(rows), PORTION)]
            block = np.concatenate(list(pool.map(decode_portion, portions)))
            pixels[start : start + BLOCK] = block
            sha256.update(block.data)
            bar.advance(task, len(block))
    pixels.flush()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return sha256.hexdigest()


def progress() -> Progress:
    """A progress bar on stderr; draws nothing if that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _remove_abandoned(parent: Path) -> None:
    """Remove temporary folders of killed builds; those of running ones are younger."""
    for partial in parent.glob(".partial-*"):
        if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)


def _ask_for_room(parent: Path, size: int) -> None:
    """Raise UserMistake if fewer than `size` bytes are free."""
    free = shutil.disk_usage(parent).free
    if size > free:
        raise UserMistake(
            f"the decoded images take {size / 1e9:.1f} GB, and {parent} has {free / 1e9:.1f} GB "
            "left: set paths.cache to a larger disk, or dataset.cache_gb=0 to decode while training"
        )


@contextmanager
def _disk_troubles(folder: Path, size: int) -> Iterator[None]:
    """Turn a full or read-only disk into an error with a remedy; `size` is in bytes."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise GenbenchError(
                f"the disk of {folder.parent} is full ({size / 1e9:.1f} GB were needed): free some "
                "of it, or set paths.cache to another disk"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise UserMistake(
                f"the cache folder {folder.parent} cannot be written ({error.strerror}): set "
                "paths.cache or the variable GENBENCH_CACHE to a folder that can"
            ) from error
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; it is released when the process ends."""
    try:
        import fcntl
    except ImportError:  # not POSIX; safe without, because folders are renamed into place
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a network file system without locks
            yield
            return
        yield
