"""What of a study is there already, so that a study started again runs only what is missing.

Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError
from genbench.results import method
from genbench.runs import iter_runs, read_config, read_status
from genbench.score import digest

# failed: to be tried again; a run that diverged is a result, and would diverge again
DONE_WITH = ("finished", "diverged", "running")
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
    scoring = {k: v for k, v in config["evaluation"].items() if k != "cache"}
    return digest({"method": method(config), "seed": config["seed"], "evaluation": scoring})


class Backlog:
    """The runs of a study in `outputs`, read once."""

    def __init__(self, outputs: Path, study: str) -> None:
        self._found: dict[str, Earlier] = {}
        for run in iter_runs(outputs):
            self._read(run, study)

    def _read(self, run: Path, study: str) -> None:
        try:
            if study not in (run / "config.yaml").read_text(encoding="utf-8"):
                return  # thousands of runs of other studies need not be parsed
            config = read_config(run)
            if str(config.get("study")) != study:
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
