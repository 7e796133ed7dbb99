"""The runs that a study already has, so that a study started again runs only the missing ones.

Imports no torch.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from genbench.errors import GenbenchError
from genbench.runs.config import read_config
from genbench.runs.directory import run_names
from genbench.runs.index import Index, file_stamp, is_settled
from genbench.runs.method import method
from genbench.runs.moved import first_named
from genbench.runs.records import no_garbage
from genbench.runs.score import digest
from genbench.runs.status import read_status

INDEX = "configs-1"  # name and format version of the index of configs

# a failed run is tried again; a diverged one is a result, and would diverge again
NOT_REPEATED = ("finished", "diverged", "running")
RANK = (
    "failed",
    "interrupted",
    "running",
    "diverged",
    "finished",
)  # of several runs with one identity the highest counts


@dataclass(frozen=True)
class EarlierRun:
    """A run of the same method and seed in the same study."""

    directory: Path
    status: str

    @property
    def resumable(self) -> bool:
        """Whether it was interrupted, so that it is resumed instead of started again."""
        return self.status == "interrupted"


def identity(config: Mapping[str, Any]) -> str:
    """Hash of method, seed and evaluation: runs of a study with equal hashes are the same run."""
    scoring = first_named({k: v for k, v in config["evaluation"].items() if k != "cache"})
    return digest({"method": method(config), "seed": config["seed"], "evaluation": scoring})


class EarlierRuns:
    """The runs of a study in `outputs`, read once, when this object is made.

    For runs in the index only the file stamp of config.yaml is checked; for others that belong to
    another study only one line is parsed. So a sweep among thousands of runs starts at once.
    """

    def __init__(self, outputs: Path, study: str) -> None:
        self._found: dict[str, EarlierRun] = {}
        index = Index(outputs, INDEX)
        names = run_names(outputs)
        try:
            with no_garbage():
                for name in names:
                    self._add(outputs / name, study, index)
        finally:  # save what was read even if Ctrl-C interrupts
            index.save(names)

    def _add(self, run: Path, study: str, index: Index) -> None:
        try:
            config = _config(run, study, index)
            if config is None:
                return
            key, earlier = identity(config), EarlierRun(run, read_status(run).status)
        except (OSError, UnicodeDecodeError, GenbenchError, KeyError, AttributeError):
            return  # an unreadable run cannot stand for one of the study: that one is run
        before = self._found.get(key)
        if before is None or RANK.index(earlier.status) >= RANK.index(before.status):
            self._found[key] = earlier

    def find(self, config: Mapping[str, Any]) -> EarlierRun | None:
        """The run that has done or is doing this one, or that it resumes; None if there is none."""
        earlier = self._found.get(identity(config))
        if earlier is None or earlier.status not in (*NOT_REPEATED, "interrupted"):
            return None
        return earlier


# --- reading configs ------------------------------------------------------------------------------
def _config(run: Path, study: str, index: Index) -> Mapping[str, Any] | None:
    """The config of a run if it belongs to `study`, else None; what was read is put into `index`.

    From config.yaml, not from result.json, in which `trainer.precision=auto` is already resolved.
    """
    stamp = file_stamp(f"{run}/config.yaml")
    if stamp is None:
        return None
    known = _Known.of(index, run.name, stamp)
    if known is None or (known.study == study and known.config is None):
        known = _read(run, study)
        if is_settled(stamp) and _is_plain(known.config):
            packed = None if known.config is None else index.pack(known.config)
            index.put(run.name, stamp, [known.study, packed])
    return known.config if known.study == study else None


@dataclass(frozen=True)
class _Known:
    """What was read of a config.yaml: all of it, or only its study (`config` is None)."""

    study: str | None
    config: Mapping[str, Any] | None

    @classmethod
    def of(cls, index: Index, name: str, stamp: str) -> "_Known | None":
        """The entry of the index; None if it is missing or damaged."""
        try:
            study, packed = index.get(name, stamp)
            return cls(study, packed and index.unpack(packed))
        except (KeyError, TypeError, ValueError):
            return None


def _read(run: Path, study: str) -> _Known:
    """Read the config of a run; of a run of another study only its `study` line is parsed."""
    line = _study_line((run / "config.yaml").read_text(encoding="utf-8"))
    if line and _study_of(line) != study:
        return _Known(_study_of(line), None)
    config = read_config(run)
    return _Known(_study_of(config), config)


def _study_of(config: Mapping[str, Any]) -> str | None:
    named = config.get("study")
    return None if named is None else str(named)


def _study_line(text: str) -> dict[str, Any] | None:
    """The `study: ...` line of a YAML mapping, parsed; None if it may span several lines.

    In a mapping in block style only top-level keys start in column 0, so the value ends before the
    next line that does.
    """
    lines = re.findall(r"^study:.*\n(?=\w)", text, re.MULTILINE) if re.match(r"\w+:", text) else []
    if len(lines) != 1 or len(re.findall(r"^study\b", text, re.MULTILINE)) != 1:
        return None
    try:
        line = yaml.safe_load(lines[0])
    except yaml.YAMLError:
        return None
    return line if isinstance(line, dict) else None


def _is_plain(config: Mapping[str, Any] | None) -> bool:
    """Whether the JSON of the index keeps it unchanged: YAML has more types than JSON."""
    try:
        return bool(json.loads(json.dumps(config)) == config)
    except (TypeError, ValueError):
        return False
