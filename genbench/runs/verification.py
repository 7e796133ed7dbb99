"""Whether a run's scores follow from its weights: they are computed again and compared. No torch.

What was found is kept in the run's `verified.json`, with the sha256 of the weights that it is about.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genbench.errors import UserMistake
from genbench.runs.files import write_json
from genbench.runs.score import Score

FILENAME = "verified.json"
WEIGHTS = "checkpoints/final.ckpt"
OUT = "scores_to"  # of the file of a protocol: the file that scores are written to, outside of the run
TOLERANCE = 1e-3  # of the value, or of half its interval where that is larger


@dataclass(frozen=True)
class Difference:
    """A score of the record and its value now; `relative` is what the tolerance bounds."""

    name: str
    recorded: float | None
    now: float | None
    relative: float


@dataclass(frozen=True)
class Verification:
    """What a verification found; `differing` are the names of scores beyond the tolerance."""

    when: str
    machine: str
    genbench: str
    weights: str  # sha256 of the checkpoint that was scored
    scores: int  # that were compared
    largest: float  # relative difference
    tolerance: float
    differing: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        """Whether every score was within the tolerance."""
        return not self.differing

    def words(self) -> str:
        """One line: what was found, when and where."""
        exact = "equal to the bit" if self.largest == 0 else f"within {self.largest:.1g}"
        found = exact if self.passed else f"{len(self.differing)} differ"
        return f"{found}: {self.scores} scores computed again, {self.when[:10]}, {self.machine}"


def differences(recorded: Sequence[Score], again: Sequence[Score]) -> list[Difference]:
    """Each recorded score of the final weights beside the one computed again under the same protocol.

    A difference is divided by the larger of the recorded value and half of its interval, so that a
    distance near 0 need not agree beyond its own chance. A score that has a value only once differs by 1.
    """
    known = {(score.name, score.protocol): score for score in again}
    found = []
    for score in recorded:
        now = known.get((score.name, score.protocol))
        if now is None or score.checkpoint != "final":
            continue
        found.append(Difference(score.name, score.value, now.value, _relative(score, now)))
    return found


def _relative(score: Score, now: Score) -> float:
    if score.value is None or now.value is None:
        return 0.0 if score.value is now.value else 1.0
    apart = abs(score.value - now.value)
    if apart == 0:
        return 0.0
    width = 0.0 if score.low is None or score.high is None else (score.high - score.low) / 2
    return apart / max(abs(score.value), width, 1e-12)


def weights_of(run: Path) -> str:
    """sha256 of the final weights. Raises UserMistake if there are none."""
    try:
        with (run / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise UserMistake(
            f"{run.name} has no {WEIGHTS}, from which its scores would follow: verify it where its "
            "weights are"
        ) from None


def write_verification(run: Path, found: Verification) -> None:
    """Keep what was found, in the place of an earlier verification."""
    write_json(run / FILENAME, {**asdict(found), "differing": list(found.differing)})


def read_verification(run: Path) -> Verification | None:
    """What was found of the weights that the run has now; None if nothing was, or of other weights."""
    found = read_recorded(run)
    try:
        return found if found is not None and found.weights == weights_of(run) else None
    except UserMistake:
        return None


def read_recorded(run: Path) -> Verification | None:
    """What the record says was found, of whatever weights: all that is known of a pulled run."""
    try:
        content: dict[str, Any] = json.loads((run / FILENAME).read_text(encoding="utf-8"))
        return Verification(
            when=str(content["when"]),
            machine=str(content["machine"]),
            genbench=str(content["genbench"]),
            weights=str(content["weights"]),
            scores=int(content["scores"]),
            largest=float(content["largest"]),
            tolerance=float(content["tolerance"]),
            differing=[str(name) for name in content.get("differing", ())],
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
