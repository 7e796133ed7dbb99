"""Shared runs in a bucket (`s3://bucket/folder`) or on another machine (`ssh://host/folder`), by fsspec.

The layout is that of `store`. An object of S3 is there whole or not at all; on another machine a content is
written under a name of its own, then renamed. Both put the same content under the same name, so that of
two that push at once neither undoes the other.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePath, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from genbench.errors import UserMistake
from genbench.runs.files import first_line
from genbench.sharing.store import Store

SCHEMES = ("s3", "ssh", "sftp")
REMEDY = "pip install 'genbench[remote]'"
PATIENCE = 20  # seconds until a machine that does not answer is given up


def is_remote(destination: str) -> bool:
    """Whether a destination is a bucket or a folder on another machine; an ssh:// that ends in .git is not."""
    scheme, separator, _ = destination.partition("://")
    return bool(separator) and scheme in SCHEMES and not destination.endswith(".git")


class RemoteStore(Store):
    """A store that fsspec reaches. UserMistake if it cannot, and for an address that names no folder."""

    def __init__(self, destination: str) -> None:
        parts = urlsplit(destination)
        self.name = _without_password(destination)
        if not parts.hostname or (parts.scheme != "s3" and parts.path in ("", "/")):
            raise UserMistake(
                f"{self.name} names no folder: give s3://bucket/folder or ssh://user@host/path/to/folder"
            )
        path = f"{parts.netloc}{parts.path}" if parts.scheme == "s3" else parts.path
        self.root = PurePosixPath(path.rstrip("/"))
        with _reached(self.name):
            self.files = _bucket() if parts.scheme == "s3" else _machine(destination)
        self.renames = parts.scheme != "s3"
        if self.renames:
            self._check_folder()

    def _check_folder(self) -> None:
        try:
            bare = self._exists(self.root / "HEAD") and self._exists(self.root / "refs")
        except OSError as error:
            raise UserMistake(f"{self.name} cannot be read: {error}") from None
        if bare:
            raise UserMistake(
                f"{self.name} is a git repository: write its address as user@host:path, or with .git at the end"
            )

    def _exists(self, path: PurePath) -> bool:
        with _errors():
            return bool(self.files.exists(str(path)))

    def _listed(self) -> list[PurePath] | None:
        with _errors():
            self.files.invalidate_cache()
            runs = str(self.root / "runs")
            if not self.files.exists(runs):
                return None
            found = [PurePosixPath(path) for path in self.files.find(runs, maxdepth=2)]
        return [path for path in sorted(found) if path.suffix == ".json" and path.name[0] != "."]

    def _read(self, path: PurePath) -> bytes:
        with _errors():
            content: bytes = self.files.cat_file(str(path))
        return content

    def _put(self, name: PurePath, content: bytes) -> None:
        path = str(name)
        with _errors():
            if not self.renames:
                self.files.pipe_file(path, content)
                return
            self._make_folder(name.parent)
            temporary = str(name.with_name(f".{secrets.token_hex(8)}.partial"))
            try:
                with self.files.open(temporary, "wb") as file:
                    file.write(content)
                self.files.ftp.posix_rename(temporary, path)
            except BaseException:
                with suppress(Exception):
                    self.files.rm_file(temporary)
                raise

    def _make_folder(self, folder: PurePath) -> None:
        """Make a folder; that another push makes a part of it first is an error of SFTP like any other."""
        for _ in folder.parts:
            with suppress(OSError):
                self.files.makedirs(str(folder), exist_ok=True)
                return
        self.files.makedirs(str(folder), exist_ok=True)


def _bucket() -> Any:
    try:
        from s3fs import S3FileSystem
    except ImportError as error:
        raise UserMistake(f"s3:// needs s3fs ({first_line(error)}): {REMEDY}") from None
    timeouts = {
        "connect_timeout": PATIENCE,
        "read_timeout": PATIENCE,
        "retries": {"max_attempts": 2},
    }
    return S3FileSystem(
        use_listings_cache=False, skip_instance_cache=True, config_kwargs=timeouts
    )  # fmt: skip


def _machine(destination: str) -> Any:
    try:
        import paramiko
        from fsspec.implementations.sftp import SFTPFileSystem
    except ImportError as error:
        raise UserMistake(f"ssh:// needs paramiko ({first_line(error)}): {REMEDY}") from None

    class KnownHosts(SFTPFileSystem):  # type: ignore[misc]  # fsspec has no types
        """SFTP with machines of ~/.ssh/known_hosts alone: fsspec's own takes any key."""

        def _connect(self) -> None:
            self.client = paramiko.SSHClient()
            self.client.load_system_host_keys()
            self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
            self.client.connect(self.host, timeout=PATIENCE, **self.ssh_kwargs)
            self.ftp = self.client.open_sftp()
            self.ftp.get_channel().settimeout(PATIENCE)

    parts = urlsplit(destination)
    given = {"port": parts.port, "username": parts.username, "password": parts.password}
    chosen = {name: value for name, value in given.items() if value}
    return KnownHosts(parts.hostname, skip_instance_cache=True, **chosen)


@contextmanager
def _reached(name: str) -> Iterator[None]:
    """Within: what keeps a place from being reached is a UserMistake."""
    try:
        with _errors():
            yield
    except OSError as error:
        raise UserMistake(f"{name} cannot be reached: {error}") from None


@contextmanager
def _errors() -> Iterator[None]:
    """Within: whatever a library raises is an OSError; what they raise when a server is gone has no class."""
    try:
        yield
    except (UserMistake, OSError):
        raise
    except Exception as error:
        raise OSError(first_line(error)) from error


def _without_password(destination: str) -> str:
    parts = urlsplit(destination)
    return destination.replace(f":{parts.password}@", "@") if parts.password else destination
