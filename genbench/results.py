"""The record of a run: `result.json`, written once; reading many of them. Imports no torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from genbench.budget import parse_images
from genbench.errors import GenbenchError, UserMistake
from genbench.runs import find_runs, read_config, read_status, unless_damaged, write_json
from genbench.score import Score, digest

SCHEMA_VERSION = 1
FILENAME = "result.json"
# of a dataset: where it comes from and how it is read, not what it is
_NOT_THE_DATA = ("root", "download", "cache", "cache_gb", "workers", "device_resident")


@dataclass(frozen=True)
class Result:
    """What a run leaves behind. `scores` is empty unless `status` is finished."""

    run_id: str
    study: str | None
    tags: Sequence[str]
    status: str
    model: str
    dataset: str
    seed: int
    fingerprint: str  # equal = seeds of one method
    config: Mapping[str, Any]  # fully resolved
    budget: Mapping[
        str, Any
    ]  # images, generator_steps, discriminator_steps, epochs, seconds, skipped_steps
    cost: Mapping[str, Any]  # parameters per network, memory, speed, device
    scores: Sequence[Score]
    environment: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None  # why it did not finish
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {"tags": list(self.tags), "scores": [s.to_dict() for s in self.scores]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Result":
        """Read what `to_dict` wrote; fields of a later version are passed over."""
        known = {f.name for f in fields(cls)}
        scores = [Score.from_dict(score) for score in content["scores"]]
        return cls(**{k: v for k, v in content.items() if k in known} | {"scores": scores})


def method(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved config defines the method and its budget.

    Without seed, study, paths, devices, workers, loggers and evaluation: runs with one method are
    seeds of each other. Precision belongs to it.
    """
    data = {k: v for k, v in config["dataset"].items() if k not in _NOT_THE_DATA}
    source = {k: v for k, v in (data.get("source") or {}).items() if k != "root"}
    budget = dict(config["budget"])
    if budget.get("images") is not None:
        budget["images"] = parse_images(budget["images"])
    return {
        "model": config["model"],
        "dataset": data | ({"source": source} if source else {}),
        "budget": budget,
        "precision": config["trainer"]["precision"],
    } | _course(config)


def _course(config: Mapping[str, Any]) -> dict[str, Any]:
    """Schedule and clipping where there are any; runs of before they existed keep their method."""
    course: dict[str, Any] = {}
    schedule, clip = config.get("schedule"), config.get("gradient_clip")
    if schedule:
        warmup = parse_images(schedule["warmup"], "schedule.warmup")
        if schedule["shape"] != "constant" or warmup:
            course["schedule"] = schedule | {"warmup": warmup}
    if clip is not None:
        course["gradient_clip"] = clip
    return course


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of `method`, 12 hex digits."""
    return digest(method(config))


def write_result(run: Path, result: Result) -> None:
    """Write `result.json`, once: a second time raises GenbenchError."""
    path = run / FILENAME
    if path.exists():
        raise GenbenchError(f"{path} exists: a result is written once; score the run again instead")
    write_json(path, result.to_dict())


def read_result(run: Path) -> Result:
    """Read a run: its result with all later evaluations, or what there is of an unfinished one.

    Raises UserMistake where a file of it is not what genbench wrote.
    """
    path = run / FILENAME
    if not path.exists():
        with _named(run / "config.yaml", "a run's config", "restore it"):
            return _unfinished(run)
    with _named(path, "a result of genbench", "restore it"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] > SCHEMA_VERSION:
            raise UserMistake(
                f"{path} is of a later genbench (schema {content['schema_version']}, this one "
                f"reads {SCHEMA_VERSION}): update genbench"
            )
        result = Result.from_dict(content)
    return replace(result, scores=[*result.scores, *_later_scores(run)])


@contextmanager
def _named(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Say which file is damaged."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserMistake(
            f"{path} is not {what} ({type(error).__name__}: {error}): {remedy}, or move the run "
            "out of the folder"
        ) from error


def load_results(arguments: Sequence[str] = (), outputs: Path | None = None) -> list[Result]:
    """Read every run in `outputs` that `arguments` name or select (see `runs.find_runs`).

    A damaged one is left out, which is said on stderr.
    """
    read = (unless_damaged(_with_method, run) for run in find_runs(arguments, outputs))
    return [result for result in read if result is not None]


def _with_method(run: Path) -> Result:
    """Read a run that a table has a row for: its config says what its method is."""
    result = read_result(run)
    with _named(run / FILENAME, "a result of genbench", "restore it"):
        method(result.config)
    return result


def _later_scores(run: Path) -> list[Score]:
    """Scores of `genbench evaluate`, oldest first."""
    scores = []
    for file in sorted((run / "evaluations").glob("*.json")):
        with _named(file, "an evaluation of genbench", "delete it and score the run again"):
            content = json.loads(file.read_text(encoding="utf-8"))
            scores += [Score.from_dict(score) for score in content["scores"]]
    return scores


def _unfinished(run: Path) -> Result:
    config, status = read_config(run), read_status(run)
    choices = config.get("choices", {})
    seconds = status.heartbeat - status.started if status.started else None
    return Result(
        run_id=run.name,
        study=config.get("study"),
        tags=config.get("tags") or [],
        status=status.status,
        model=choices.get("model", "?"),
        dataset=choices.get("dataset", "?"),
        seed=config.get("seed", 0),
        fingerprint=fingerprint(config),
        config=config,
        budget={"images": status.images, "seconds": seconds},
        cost={},
        scores=[],
        reason=status.reason,
    )
