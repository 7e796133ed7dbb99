"""A cache of what was read from a folder of runs, so that only changed files are read again. No torch.

An SQLite file in the user's cache folder, one for each folder of runs and each host, because file locks
between hosts are unreliable. It may be deleted at any time. An entry is used only if its stamp says that
no file has changed since and its checksum is right; a file that is not a database is replaced. Where
nothing can be written, there is no cache.
"""

import hashlib
import json
import os
import socket
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from genbench.runs.paths import cache_folder

LAYOUT = 2  # of the tables; a file with another layout is emptied
LOCK_SECONDS = 10.0  # to wait while another process writes
WORTH_WRITING = 64  # with fewer changes, reading these runs again is faster than writing them
TABLES = """
CREATE TABLE IF NOT EXISTS entries
    (name TEXT PRIMARY KEY, stamp TEXT, content TEXT, checksum INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (hash TEXT PRIMARY KEY, content TEXT) WITHOUT ROWID;
"""


def index_file(folder: Path, kind: str) -> Path:
    """Path of the index of `folder`, which need not exist."""
    place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return cache_folder() / "index" / f"{kind}-{socket.gethostname()}-{place}.sqlite"


class Index:
    """Entries by name, read when the index is made.

    An entry is a mapping of plain JSON. Lists and mappings two levels deep, such as the sections of a
    config, are stored once for all entries that have them, and `get` returns the same object for each:
    do not change them.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._entries: dict[str, tuple[str, str, int]] = {}  # (stamp, content, checksum) by name
        self._texts: dict[str, str] = {}  # JSON of the shared parts by hash
        self._parts: dict[str, Any] = {}  # those that were decoded
        self._new: dict[str, tuple[str, str, int]] = {}
        self._new_texts: dict[str, str] = {}
        self._path: Path | None = None
        with suppress(OSError, RuntimeError):  # there is no home directory
            self._path = index_file(folder, kind)
        self._read()

    def get(self, name: str, stamp: str) -> dict[str, Any] | None:
        """The entry `name` if it was put with this stamp and is undamaged, else None."""
        known, text, checksum = self._entries.get(name, ("", "", 0))
        if known != stamp or _checksum(stamp, text) != checksum:
            return None
        try:
            content: dict[str, Any] = json.loads(text)
            part = self._part
            for key, value in content.items():
                if type(value) is dict:
                    content[key] = {
                        k: part(v[0]) if type(v) is list else v for k, v in value.items()
                    }
        except (ValueError, KeyError):
            return None
        return content

    def put(self, name: str, stamp: str, content: Mapping[str, Any]) -> None:
        """Add or replace an entry; `save` writes it."""
        text = _json({key: self._shared(value) for key, value in content.items()})
        self._new[name] = (stamp, text, _checksum(stamp, text))

    def save(self, names: Iterable[str]) -> None:
        """Write the new entries and delete those that are not in `names`, if that is worth it."""
        gone = self._entries.keys() - set(names)
        if len(self._new) + len(gone) < WORTH_WRITING or self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write(gone)
            except sqlite3.OperationalError:  # locked, full or read-only
                return
            except sqlite3.DatabaseError:
                self._path.unlink(missing_ok=True)
                with suppress(sqlite3.Error):
                    self._write(gone)

    # --- shared parts ---
    def _shared(self, value: Any) -> Any:
        """A mapping with each list and mapping in it replaced by `[hash]`; other values as they are."""
        if not isinstance(value, Mapping):
            return value
        nested = (Mapping, list, tuple)
        return {k: [self._share(v)] if isinstance(v, nested) else v for k, v in value.items()}

    def _share(self, part: Any) -> str:
        text = _json(part)
        key = _hash(text)
        if self._texts.get(key) != text:
            self._texts[key] = self._new_texts[key] = text
        return key

    def _part(self, key: str) -> Any:
        """The part with this hash; KeyError if it is missing or damaged."""
        try:
            return self._parts[key]
        except KeyError:
            text = self._texts[key]
            if _hash(text) != key:
                raise KeyError(key) from None
            part = self._parts[key] = json.loads(text)
            return part

    # --- the file ---
    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path or ":memory:", timeout=LOCK_SECONDS)

    def _read(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            with closing(self._open()) as database:
                if database.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
                    return
                rows = database.execute("SELECT name, stamp, content, checksum FROM entries")
                self._entries = {name: (stamp, text, crc) for name, stamp, text, crc in rows}
                self._texts = dict(database.execute("SELECT hash, content FROM parts"))
        except (sqlite3.Error, ValueError, TypeError):
            self._entries, self._texts = {}, {}

    def _write(self, gone: Iterable[str]) -> None:
        with closing(self._open()) as database, database:
            # a power cut may damage the file, which checksums reveal; fsync would take too long
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN IMMEDIATE")
            if database.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
                for table in ("entries", "parts"):
                    database.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in filter(str.strip, TABLES.split(";")):
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


def _json(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _checksum(stamp: str, text: str) -> int:
    return zlib.crc32(text.encode(), zlib.crc32(stamp.encode()))
