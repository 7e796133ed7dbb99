"""A git repository of shared runs: the folder of `store` on a branch of its own.

This machine keeps a copy in its cache. A push commits what is new on top of what the repository has; if
somebody else was faster, it begins again on top of theirs, which is never in conflict: files are only added.
"""

import fcntl
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from genbench.errors import UserMistake
from genbench.runs.paths import cache_folder
from genbench.runs.score import digest
from genbench.sharing.store import Store

BRANCH = "genbench-runs"
TRIES = 100  # of a push that others were faster than
# no link of a repository is made one here, no hook is run, nobody is asked for a password
SAFE = ("core.symlinks=false", "core.hooksPath=/dev/null", "protocol.ext.allow=never",
        "user.name=genbench", "user.email=genbench@localhost", "commit.gpgsign=false",
        "core.autocrlf=false", "gc.auto=0")  # fmt: skip


def is_repository(destination: str) -> bool:
    """Whether a destination is a git repository: an address, or a bare repository in a folder."""
    if "://" in destination or destination.endswith(".git"):
        return True
    folder = Path(destination)
    if (folder / ".git").exists():
        raise UserMistake(
            f"{destination} is a working tree of git: push to its bare repository, or to a folder in it"
        )
    return (folder / "HEAD").is_file() and (folder / "refs").is_dir()


class Repository:
    """The branch BRANCH of a repository; use within `locked`."""

    def __init__(self, address: str) -> None:
        if shutil.which("git") is None:
            raise UserMistake(f"{address} needs git, which is not installed here")
        if address.startswith("-") or "::" in address:
            raise UserMistake(f"{address} is no address of a git repository")
        self.address = address if "://" in address else _absolute(address)
        self.copy = cache_folder() / "shared" / digest(self.address, 16)
        self.store = Store(self.copy)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within: no other process of this machine works on the copy."""
        self.copy.parent.mkdir(parents=True, exist_ok=True)
        with self.copy.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def fetch(self) -> bool:
        """Make the copy what the repository has now; False if the branch does not exist yet."""
        if not (self.copy / ".git").is_dir():
            shutil.rmtree(self.copy, ignore_errors=True)
            self._git("init", "--quiet", str(self.copy), where=self.copy.parent)
        listed = self._git("ls-remote", "--heads", "--", self.address, f"refs/heads/{BRANCH}")
        if not listed.strip():
            self._git("checkout", "--quiet", "--orphan", f"new-{os.getpid()}-{time.time_ns()}")
            self._git("read-tree", "--empty")
            self._git("clean", "-ffdxq")
            return False
        # `--depth 1`: history is of no use, contents are never changed
        self._git("fetch", "--quiet", "--depth", "1", "--", self.address, f"refs/heads/{BRANCH}")
        self._git("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
        self._git("clean", "-ffdxq")
        return True

    def push(self, runs: Sequence[Path], weights: bool) -> list[Path]:
        """Add runs; those that were new. UserMistake if the repository cannot be reached or written."""
        for _ in range(TRIES):
            self.fetch()
            new = [run for run in runs if self.store.add(run, weights)]
            if not new:
                return []
            self._git("add", "--force", "--all", "objects", "runs")
            self._git("commit", "--quiet", "--message", f"{len(new)} runs: {_few(new)}")
            done = self._call("push", "--quiet", "--", self.address, f"HEAD:refs/heads/{BRANCH}")
            if done.returncode == 0:
                return new
            if not _was_slower(done.stderr):
                raise UserMistake(self._refused(done.stderr))
            time.sleep(random.uniform(0, 0.5))
        raise UserMistake(
            f"{self.address}: others pushed all the time; nothing is lost: push again"
        )

    def _git(self, *arguments: str, where: Path | None = None) -> str:
        done = self._call(*arguments, where=where)
        if done.returncode:
            raise UserMistake(self._refused(done.stderr))
        return done.stdout

    def _call(
        self, *arguments: str, where: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        settings = [part for setting in SAFE for part in ("-c", setting)]
        quiet = {
            name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")
        }
        return subprocess.run(
            ["git", *settings, *arguments],
            cwd=where or self.copy,
            env=quiet | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )

    def _refused(self, words: str) -> str:
        lines = [line for line in words.splitlines() if line.startswith(("fatal:", "error:"))]
        reason = (lines or words.strip().splitlines() or ["no reason given"])[0]
        return f"git cannot use {self.address} ({reason}); nothing of yours is lost: try again when it can"


def _was_slower(words: str) -> bool:
    """Whether git refused a push because somebody else's came first."""
    marks = ("non-fast-forward", "fetch first", "cannot lock ref", "incorrect old value",
             "failed to update ref", "reference already exists")  # fmt: skip
    return any(mark in words for mark in marks)


def _absolute(address: str) -> str:
    """A local path as an absolute one; `user@host:path` as it is."""
    head = address.partition("/")[0]
    return address if ":" in head else str(Path(address).expanduser().resolve())


def _few(runs: Sequence[Path]) -> str:
    names = [run.name for run in runs[:3]]
    return ", ".join(names) + (", ..." if len(runs) > 3 else "")
