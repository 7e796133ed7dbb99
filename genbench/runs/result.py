"""`result.json`, the record of a run, with later evaluations and tags. Imports no torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError, UserMistake
from genbench.runs.config import read_config
from genbench.runs.dataset_name import dataset_name
from genbench.runs.files import write_json
from genbench.runs.method import fingerprint
from genbench.runs.moved import renamed
from genbench.runs.score import Score
from genbench.runs.status import Status, read_status

SCHEMA_VERSION = 1
FILENAME = "result.json"
TAGS = "tags.json"  # exists if the tags were changed after the start


@dataclass(frozen=True)
class Result:
    """The record of a run. `scores` is empty unless `status` is finished."""

    run_id: str
    study: str | None
    tags: Sequence[str]
    status: str
    model: str
    dataset: str
    seed: int
    fingerprint: str  # of the method: equal in runs that differ in their seed only
    config: Mapping[str, Any]  # fully resolved
    # what was used: images, generator_steps, discriminator_steps, epochs, seconds, skipped_steps
    budget: Mapping[str, Any]
    cost: Mapping[str, Any]  # parameters per network, memory, speed, device
    scores: Sequence[Score]
    environment: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None  # why it did not finish
    warnings: Sequence[str] = field(default_factory=list)  # from its training, each with a remedy
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {"tags": list(self.tags), "scores": [s.to_dict() for s in self.scores]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Result":
        """Inverse of `to_dict`; unknown fields, which a later version may have written, are ignored."""
        known = {k: v for k, v in content.items() if k in {f.name for f in fields(cls)}}
        read = {
            "scores": [Score.from_dict(score) for score in content["scores"]],
            "config": renamed(content["config"]),
            "dataset": dataset_name(content["config"], content["dataset"]),
        }
        return cls(**known | read)


def write_result(run: Path, result: Result) -> None:
    """Write `result.json`, once: a second time raises GenbenchError."""
    path = run / FILENAME
    if path.exists():
        raise GenbenchError(f"{path} exists: a result is written once; score the run again instead")
    write_json(path, result.to_dict())


def read_result(run: Path) -> Result:
    """Read the result of a run with all later evaluations, or what is known of an unfinished run.

    Raises UserMistake, naming the file, if one of its files is damaged.
    """
    path = run / FILENAME
    if not path.exists():
        with explaining_damage(run / "config.yaml", "a run's config", "restore it"):
            return _unfinished(run)
    with explaining_damage(path, "a result of genbench", "restore it"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] > SCHEMA_VERSION:
            raise UserMistake(
                f"{path} is of a later genbench (schema {content['schema_version']}, this one "
                f"reads {SCHEMA_VERSION}): update genbench"
            )
        result = Result.from_dict(content)
    scores = [*result.scores, *_later_scores(run)]
    name = run.name if run.name not in ("", "..") else run.resolve().name
    # a directory that was renamed is called by its new name everywhere
    return replace(result, run_id=name, scores=scores, tags=_tags(run, result.tags))


@contextmanager
def explaining_damage(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Turn errors in reading `path` into a UserMistake that says it is not `what`, and the `remedy`."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserMistake(
            f"{path} is not {what} ({type(error).__name__}: {error}): {remedy}, or move the run "
            "out of the folder"
        ) from error


def _later_scores(run: Path) -> list[Score]:
    """Scores of `genbench evaluate`, oldest first."""
    scores = []
    for file in sorted((run / "evaluations").glob("*.json")):
        with explaining_damage(
            file, "an evaluation of genbench", "delete it and score the run again"
        ):
            content = json.loads(file.read_text(encoding="utf-8"))
            scores += [Score.from_dict(score) for score in content["scores"]]
    return scores


def _unfinished(run: Path) -> Result:
    config, status = read_config(run), read_status(run)
    choices = config.get("choices", {})
    return Result(
        run_id=run.name,
        study=config.get("study"),
        tags=_tags(run, config.get("tags")),
        model=choices.get("model", "?"),
        dataset=dataset_name(config),
        seed=config.get("seed", 0),
        fingerprint=fingerprint(config),
        config=config,
        cost={},
        scores=[],
        **progress_fields(status),
    )


def progress_fields(status: Status) -> dict[str, Any]:
    """Fields of the Result of an unfinished run that change while it runs."""
    seconds = status.heartbeat - status.started if status.started else None
    return {
        "status": status.status,
        "reason": status.reason,
        "budget": {"images": status.images, "seconds": seconds},
    }


# --- tags ---------------------------------------------------------------------------------------
def _tags(run: Path, first: Sequence[str] | None) -> Sequence[str]:
    """The tags in tags.json, or else `first`, those that the run was started with."""
    path = run / TAGS
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return first or []
    with explaining_damage(path, "a list of tags", "delete it"):
        return [str(tag) for tag in json.loads(text)["tags"]]


def write_tags(run: Path, tags: Sequence[str]) -> None:
    """Replace the tags of a run."""
    write_json(run / TAGS, {"tags": list(tags)})
