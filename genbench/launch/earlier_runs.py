"""What of a study is there already, so that a study started again runs only what is missing.

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

INDEX = "configs-1"  # what is kept of configs, and how


# failed: to be tried again; a run that diverged is a result, and would diverge again
DONE_WITH = ("finished", "diverged", "running")
SINCE = {"split": "test", "pixels": "mean"}  # what earlier configs of an evaluation lack, and mean
RANK = ("failed", "interrupted", "running", "diverged", "finished")  # the best there is counts


@dataclass(frozen=True)
class Earlier:
    """A run of the same method and seed in the same study."""

    directory: Path
    status: str

    @property
    def resumable(self) -> bool:
        """It was interrupted: it is continued, not begun again."""
        return self.status == "interrupted"


def identity(config: Mapping[str, Any]) -> str:
    """Hash of what makes two runs of a study the same one: method, seed and how it is scored."""
    given = config["evaluation"].items()
    scoring = first_named({k: v for k, v in given if k != "cache" and v != SINCE.get(k)})
    return digest({"method": method(config), "seed": config["seed"], "evaluation": scoring})


class EarlierRuns:
    """The runs of a study in `outputs`, as they are when it is made.

    Of runs that an index knows only the state of config.yaml is looked at; of those that it does not
    know and that are of other studies, one line is parsed. So a sweep among thousands starts at once.
    """

    def __init__(self, outputs: Path, study: str) -> None:
        self._found: dict[str, Earlier] = {}
        index = Index(outputs, INDEX)
        names = run_names(outputs)
        try:
            with no_garbage():
                for name in names:
                    self._add(outputs / name, study, index)
        finally:  # what was read is kept also if the reader was stopped
            index.save(names)

    def _add(self, run: Path, study: str, index: Index) -> None:
        try:
            config = _config(run, study, index)
            if config is None:
                return
            key, earlier = identity(config), Earlier(run, read_status(run).status)
        except (OSError, UnicodeDecodeError, GenbenchError, KeyError, AttributeError):
            return  # not a run that can be recognised: nothing to be spared
        before = self._found.get(key)
        if before is None or RANK.index(earlier.status) >= RANK.index(before.status):
            self._found[key] = earlier

    def find(self, config: Mapping[str, Any]) -> Earlier | None:
        """The run that makes this one unnecessary or that it continues; None if it is missing."""
        earlier = self._found.get(identity(config))
        if earlier is None or earlier.status not in (*DONE_WITH, "interrupted"):
            return None
        return earlier


# --- many configs ---------------------------------------------------------------------------------
def _config(run: Path, study: str, index: Index) -> Mapping[str, Any] | None:
    """The config of a run if it is of `study`; what was read of it is put into `index`.

    That of config.yaml, which says `trainer.precision=auto` where the result says what came of it.
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
    """What was read of a config.yaml: all of it, or which study it is of."""

    study: str | None
    config: Mapping[str, Any] | None

    @classmethod
    def of(cls, index: Index, name: str, stamp: str) -> "_Known | None":
        """What the index has; None if that is nothing, or not whole."""
        try:
            study, packed = index.get(name, stamp)
            return cls(study, packed and index.unpack(packed))
        except (KeyError, TypeError, ValueError):
            return None


def _read(run: Path, study: str) -> _Known:
    """Parse as little as says whether a run is of `study`."""
    line = _study_line((run / "config.yaml").read_text(encoding="utf-8"))
    if line and _study_of(line) != study:
        return _Known(_study_of(line), None)
    config = read_config(run)
    return _Known(_study_of(config), config)


def _study_of(config: Mapping[str, Any]) -> str | None:
    named = config.get("study")
    return None if named is None else str(named)


def _study_line(text: str) -> dict[str, Any] | None:
    """The one line of a YAML mapping that says its study; None where it takes more than a line.

    Nothing else in a mapping in block style can begin at the margin, and its value ends where the
    next line does too.
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
    """Does it come out of an index as it went in? YAML has more types than JSON."""
    try:
        return bool(json.loads(json.dumps(config)) == config)
    except (TypeError, ValueError):
        return False
