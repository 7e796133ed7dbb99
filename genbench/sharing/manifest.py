"""What is shared of a run: a manifest of its files, each named by the sha256 of its content.

A manifest says nothing of when it was made, so that the same run gives the same one. Those of one run that
were made on several machines, or at several times, are merged: files by their names, of two contents the
later one by the time that the file was written. `result.json` is written once; two of them are two runs.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench.errors import UserMistake
from genbench.runs.config import read_config
from genbench.runs.method import NOT_THE_DATA
from genbench.runs.result import FILENAME
from genbench.runs.score import digest

VERSION = 2
RECORDS = (
    "config.yaml",
    FILENAME,
    "status.json",
    "tags.json",
    "environment.json",
    "history.csv",
    "verified.json",
    "per-image.npz",
)
WEIGHTS = "checkpoints/final.ckpt"
# the only paths that are written when runs are pulled: none leaves the directory of the run
SHARED = re.compile(
    r"(?:config\.yaml|(?:result|status|tags|environment|verified)\.json|history\.csv|per-image\.npz|checkpoints/final\.ckpt"
    r"|evaluations/[A-Za-z0-9][\w.-]*\.(?:json|npz)|samples/[A-Za-z0-9][\w.-]*\.png)",
    re.ASCII,
)
# files that version 1 did not know: a manifest without any is still of that version, and stays the same
SECOND = re.compile(r"verified\.json|per-image\.npz|evaluations/.*\.npz", re.ASCII)
A_RUN = re.compile(r"(?!latest$)[\w][\w.-]*", re.ASCII)  # the name of a directory, no path
SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """A content and the time when it was written, in whole seconds since 1970."""

    sha256: str
    modified: int

    @property
    def age(self) -> tuple[int, str]:
        """By which of two contents the later one is taken, the same one everywhere."""
        return self.modified, self.sha256


@dataclass(frozen=True)
class Manifest:
    """The files of a run, by their paths in its directory. `key` tells runs of one name apart."""

    run_id: str
    key: str
    files: Mapping[str, File]

    @property
    def result(self) -> str | None:
        """The sha256 of its result.json."""
        file = self.files.get(FILENAME)
        return None if file is None else file.sha256

    def is_of_the_run_of(self, other: "Manifest") -> bool:
        """Whether both are of one run: of one config, and not of two results."""
        results = {self.result, other.result} - {None}
        return self.key == other.key and len(results) < 2

    def merged(self, other: "Manifest") -> "Manifest":
        """Both together: of two contents of a file the later one."""
        files = dict(self.files)
        for path, file in other.files.items():
            if path not in files or files[path].age < file.age:
                files[path] = file
        return Manifest(self.run_id, self.key, files)

    def text(self) -> str:
        """As JSON, always the same for the same files."""
        files = {path: vars(file) for path, file in sorted(self.files.items())}
        version = VERSION if any(SECOND.fullmatch(path) for path in files) else 1
        content = {"version": version, "run_id": self.run_id, "key": self.key, "files": files}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str, where: str) -> "Manifest":
        """Read one that may come from anybody. UserMistake for what is none, or names a path elsewhere."""
        try:
            content: Any = json.loads(text)
            version, run_id, key = content["version"], content["run_id"], str(content["key"])
            files = {
                path: File(str(file["sha256"]), int(file["modified"]))
                for path, file in content["files"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserMistake(f"{where} is no manifest of a run ({error!r})") from None
        if not isinstance(version, int) or version > VERSION:
            raise UserMistake(
                f"{where} is of a later genbench (version {version}): update genbench"
            )
        for name, pattern in [(str(run_id), A_RUN), *((path, SHARED) for path in files)]:
            if not pattern.fullmatch(name):
                raise UserMistake(
                    f"{where} names {name!r}, which is no file of a run, or leaves its folder: it is left out"
                )
        if not all(SHA.fullmatch(file.sha256) for file in files.values()):
            raise UserMistake(f"{where} has a content without a sha256: it is left out")
        return cls(str(run_id), key, files)


def manifest_of(run: Path, weights: bool = False) -> Manifest:
    """The manifest of a run on disk: its records, evaluations, curves and newest grid, about 200 kB.

    With `weights` the final checkpoint too. UserMistake without a config, and for a name that is none.
    """
    if not A_RUN.fullmatch(run.name):
        raise UserMistake(
            f"{run.name} is no name that can be shared: letters, digits, '-', '_', '.'"
        )
    paths = [*RECORDS, *([WEIGHTS] if weights else []), "samples/curves.png"]
    grids = sorted((run / "samples").glob("samples-[0-9]*.png"))[-1:]
    evaluations = [p for end in ("json", "npz") for p in (run / "evaluations").glob(f"*.{end}")]
    found = [*(run / path for path in paths), *evaluations, *grids]
    files = {}
    for path in found:
        name = path.relative_to(run).as_posix()
        if path.is_file() and SHARED.fullmatch(name):
            content = path.read_bytes()
            files[name] = File(sha256(content), int(path.stat().st_mtime))
    return Manifest(run.name, _key(read_config(run)), files)


def sha256(content: bytes) -> str:
    """In hex digits."""
    return hashlib.sha256(content).hexdigest()


def _key(config: Mapping[str, Any]) -> str:
    """A hash of what a config keeps when its run is resumed elsewhere."""
    kept = {k: v for k, v in config.items() if k not in ("trainer", "paths", "logger")}
    kept["choices"] = {k: v for k, v in (config.get("choices") or {}).items() if k != "trainer"}
    kept["dataset"] = {
        k: v for k, v in (config.get("dataset") or {}).items() if k not in NOT_THE_DATA
    }
    return digest(kept, 16)
