"""What has been read of a folder of runs, kept so that it need not be read again. No torch.

An SQLite file in the user's cache folder, one per folder of runs and host (file locks between hosts
are not to be relied on). It may be deleted at any time. Nothing in it is believed that does not prove
itself: an entry carries the stamp of the files that it was read from and a checksum, a shared part its
hash, and a file that is no database is replaced. Where nothing can be written, nothing is kept.
"""

import base64
import hashlib
import json
import os
import re
import socket
import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from genbench.runs.paths import cache_folder

LAYOUT = 1  # of the tables; those of another are thrown away
PATIENCE = 10.0  # seconds to wait for another process that writes
TICK = 2_000_000_000  # ns: the coarsest clock of a file system still in use
WORTH_WRITING = 64  # fewer new entries than this are read again sooner than they are stored
_TABLES = """
CREATE TABLE IF NOT EXISTS entries
    (name TEXT PRIMARY KEY, stamp TEXT, content TEXT, checksum INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (hash TEXT PRIMARY KEY, content TEXT) WITHOUT ROWID;
"""


def index_file(folder: Path, kind: str) -> Path:
    """Where the index of `folder` is, whether it exists or not."""
    place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return cache_folder() / "index" / f"{kind}-{socket.gethostname()}-{place}.sqlite"


class Index:
    """Entries by name, as of the moment at which it was opened.

    An entry's content is plain JSON. Parts of it that many entries have in common are stored once
    (`share`, when it is made) and read once (`part`): they must not be changed by who reads them.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._entries: dict[str, tuple[str, str, int]] = {}
        self._texts: dict[str, str] = {}
        self._parts: dict[str, Any] = {}
        self._new: dict[str, tuple[str, str, int]] = {}
        self._new_texts: dict[str, str] = {}
        self._path: Path | None = None
        with suppress(OSError, RuntimeError):  # no home
            self._path = index_file(folder, kind)
        self._read()

    def stamp(self, name: str) -> str | None:
        """The stamp under which there is an entry."""
        entry = self._entries.get(name)
        return entry and entry[0]

    def get(self, name: str, stamp: str) -> Any:
        """The content of the entry with that stamp; None if there is none that is whole."""
        entry = self._entries.get(name)
        if entry is None or entry[0] != stamp or _checksum(stamp, entry[1]) != entry[2]:
            return None
        try:
            return json.loads(entry[1])
        except ValueError:
            return None

    def put(self, name: str, stamp: str, content: Any) -> None:
        """Keep an entry; written by `save`."""
        text = json.dumps(content, separators=(",", ":"))
        self._new[name] = (stamp, text, _checksum(stamp, text))

    def share(self, part: Any) -> str:
        """Keep a part; returns the hash by which an entry refers to it."""
        text = json.dumps(part, separators=(",", ":"))
        key = _hash(text)
        if self._texts.get(key) != text:
            self._texts[key] = self._new_texts[key] = text
        return key

    def pack(self, content: Mapping[str, Any]) -> list[Any]:
        """A mapping whose keys and nested values are shared, for `unpack`."""
        nested = (dict, list, tuple)
        values = [[self.share(v)] if isinstance(v, nested) else v for v in content.values()]
        return [self.share(list(content)), values]

    def unpack(self, packed: Sequence[Any]) -> dict[str, Any]:
        """What was given to `pack`; nested values are shared with other mappings."""
        keys, values = packed
        part = self.part
        return dict(
            zip(part(keys), [part(v[0]) if type(v) is list else v for v in values], strict=True)
        )

    def part(self, key: str) -> Any:
        """The part with that hash, the same object each time; KeyError if there is none."""
        try:
            return self._parts[key]
        except KeyError:
            text = self._texts[key]
            if _hash(text) != key:
                raise KeyError(key) from None
            part = self._parts[key] = json.loads(text)
            return part

    def save(self, names: Iterable[str]) -> None:
        """Write what is new and drop entries other than `names`, if it is worth it and possible."""
        gone = self._entries.keys() - set(names)
        if len(self._new) + len(gone) < WORTH_WRITING or self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write(gone)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # locked, full, not writable
                    return
                self._path.unlink(missing_ok=True)
                with suppress(sqlite3.Error):
                    self._write(gone)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path or ":memory:", timeout=PATIENCE)

    def _read(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            with closing(self._open()) as database:
                if database.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
                    return
                rows = database.execute("SELECT name, stamp, content, checksum FROM entries")
                self._entries = {name: (stamp, text, sum_) for name, stamp, text, sum_ in rows}
                self._texts = dict(database.execute("SELECT hash, content FROM parts"))
        except (sqlite3.Error, ValueError, TypeError):
            self._entries, self._texts = {}, {}

    def _write(self, gone: Iterable[str]) -> None:
        with closing(self._open()) as database, database:
            # a power cut may spoil the file, which is noticed; waiting for the disk is not worth it
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN IMMEDIATE")
            if database.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
                for table in ("entries", "parts"):
                    database.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in filter(str.strip, _TABLES.split(";")):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {LAYOUT}")
            database.executemany(
                "INSERT OR REPLACE INTO parts VALUES (?, ?)", self._new_texts.items()
            )
            database.executemany("DELETE FROM entries WHERE name = ?", ((name,) for name in gone))
            database.executemany(
                "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
                ((name, *entry) for name, entry in self._new.items()),
            )


# --- the state of a run's files -------------------------------------------------------------------
def run_stamp(run: str) -> str | None:
    """When the files of a run's record were last changed, their sizes and inodes; None for no run.

    Of a run with a result, config.yaml is not looked at: its result holds the config.
    """
    result = file_stamp(f"{run}/result.json")
    first = result or file_stamp(f"{run}/config.yaml")
    if first is None:
        return None
    kind = "r" if result else "c"
    status = file_stamp(f"{run}/status.json") or ""
    stamp = f"{kind}{first} {status}"
    if os.access(f"{run}/tags.json", os.F_OK):
        stamp += f" t{file_stamp(f'{run}/tags.json')}"
    if os.access(f"{run}/evaluations", os.F_OK):
        with suppress(OSError):
            names = sorted(name for name in os.listdir(f"{run}/evaluations"))
            files = (f"{file_stamp(f'{run}/evaluations/{name}')}" for name in names)
            stamp += f" e{' '.join(files)}"
    return stamp


def is_settled(stamp: str) -> bool:
    """Would a change of these files show? One within a clock's tick of the last might not."""
    now = time.time_ns()
    times = (int(part) for part in re.findall(r"(\d+)/", stamp))
    return all(abs(now - moment) > TICK for moment in times)


def file_stamp(path: str) -> str | None:
    """When a file was last changed, its size and inode; None where there is none."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return f"{state.st_mtime_ns}/{state.st_size}/{state.st_ino}"


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:12]).decode()


def _checksum(stamp: str, text: str) -> int:
    return zlib.crc32(text.encode(), zlib.crc32(stamp.encode()))
