"""Runs that a study has already, so that a study started again runs only what is missing. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError, UserMistake
from genbench.runs.config import read_config
from genbench.runs.dataset_name import as_named_before, other_pictures, same_pictures
from genbench.runs.directory import run_names
from genbench.runs.index import Index
from genbench.runs.method import method
from genbench.runs.moved import MOVED, first_named
from genbench.runs.score import digest
from genbench.runs.stamps import file_stamp, is_settled
from genbench.runs.status import read_status

# of identities; a change of `identity` needs a new number, a change of MOVED makes a new index anyway
INDEX = "identities-2-" + digest(sorted(MOVED), 8)

# not to be run again; `failed` is, and a run that diverged would diverge again
NOT_REPEATED = ("finished", "diverged", "running")
# of several equal runs, the one whose status comes last here counts
RANK = ("failed", "interrupted", "running", "diverged", "finished")
RESUME = "`genbench resume`"  # in the reason of a run that can go on
# settings of an evaluation that older configs lack, with the values that these had
ADDED = {
    "split": "test",
    "pixels": "mean",
    "reconstruction": None,
    "inversion": False,
}
# of an evaluation, what adds scores and changes none: a run without them is no other run
NOT_COMPARED = ("latents", "labels", "evaluations", "gallery")
LATER_LIKELIHOODS = ("ode",)  # where they are not enabled, older configs lack them


@dataclass(frozen=True)
class EarlierRun:
    """A run of the same method and seed in the same study."""

    directory: Path
    status: str

    @property
    def resumable(self) -> bool:
        """Whether it was interrupted, so that it is continued rather than started again."""
        return self.status == "interrupted"


def identity(config: Mapping[str, Any]) -> str:
    """Hash of what makes two runs of a study equal: method, seed, evaluation, priors and search.

    The search is the one that found the settings: the winner of a longer search is another run.
    """
    left_out = [("cache", config["evaluation"].get("cache")), *ADDED.items()]
    known = {k: v for k, v in config["evaluation"].items() if k not in NOT_COMPARED}
    if isinstance(known.get("likelihoods"), Mapping):
        known["likelihoods"] = {
            name: one
            for name, one in known["likelihoods"].items()
            if name not in LATER_LIKELIHOODS or (one or {}).get("enabled")
        }
    scoring = first_named(dict(item for item in known.items() if item not in left_out))
    searched = {"search": config["search"]} if config.get("search") else {}
    priors = {"prior": config["prior"]} if config.get("prior") else {}  # older configs lack the key
    return digest(
        {"method": method(config), "seed": config["seed"], "evaluation": scoring}
        | searched
        | priors
    )


class EarlierRuns:
    """The runs of a study in `outputs` at the time when this object is made.

    Study and identity of each run are taken from an index if its config.yaml has not changed, so that
    a sweep among thousands of runs starts at once.
    """

    def __init__(self, outputs: Path, study: str) -> None:
        self._found: dict[str, EarlierRun] = {}
        index = Index(outputs, INDEX)
        names = run_names(outputs)
        try:
            for name in names:
                self._add(outputs / name, study, index)
        finally:  # also after Ctrl-C, so that the next reader need not begin again
            index.save(names)

    def _add(self, run: Path, study: str, index: Index) -> None:
        try:
            known = _study_and_identity(run, index)
        except (OSError, GenbenchError, KeyError, TypeError, AttributeError):
            return  # damaged, or no run of genbench
        if known is None or known["study"] != study:
            return
        earlier = EarlierRun(run, _standing(run))
        before = self._found.get(known["identity"])
        if before is None or RANK.index(earlier.status) >= RANK.index(before.status):
            self._found[known["identity"]] = earlier

    def find(self, config: Mapping[str, Any]) -> EarlierRun | None:
        """The earlier run that is equal to this one, if it is done or can be resumed; else None.

        UserMistake if it was trained on other pictures, of the same name.
        """
        earlier = self._found.get(identity(config)) or self._named_before(config)
        if earlier is None or earlier.status not in (*NOT_REPEATED, "interrupted"):
            return None
        other = other_pictures(config, read_config(earlier.directory))
        if other is not None:
            dataset = config["dataset"]
            raise UserMistake(
                f"this study has {earlier.directory.name} of the same settings, on other pictures that are called "
                f"{dataset.get('name')} too, those of {other}: give those of {dataset.get('root')} a name of "
                "their own (dataset.name=...), or another study"
            )
        return earlier

    def _named_before(self, config: Mapping[str, Any]) -> EarlierRun | None:
        """An equal run on the same pictures from when all image folders had one name."""
        before = as_named_before(config)
        earlier = self._found.get(identity(before)) if before else None
        if earlier is None or not same_pictures(config, read_config(earlier.directory)):
            return None
        return earlier


def _standing(run: Path) -> str:
    """How a run ended. One that failed through no fault of its own and has a checkpoint counts as interrupted.

    It was killed, or the disk was full: its reason says that `genbench resume` goes on.
    """
    status = read_status(run)
    resumable = status.status == "failed" and RESUME in (status.reason or "")
    return (
        "interrupted" if resumable and any((run / "checkpoints").glob("*.ckpt")) else status.status
    )


def _study_and_identity(run: Path, index: Index) -> dict[str, Any] | None:
    """{"study", "identity"} of the config.yaml of a run; None if there is no such file.

    Not of the config in result.json, which has the precision that `trainer.precision=auto` became.
    """
    stamp = file_stamp(f"{run}/config.yaml")
    if stamp is None:
        return None
    known = index.get(run.name, stamp)
    if known is None:
        config = read_config(run)
        study = config.get("study")
        known = {"study": None if study is None else str(study), "identity": identity(config)}
        if is_settled(stamp):
            index.put(run.name, stamp, known)
    return known
