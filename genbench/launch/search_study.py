"""The Optuna study of a search: its settings, its storage, its sampler and pruner."""

import importlib.util
import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import optuna
from omegaconf import OmegaConf
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.study import StudyDirection

from genbench.errors import UserMistake
from genbench.launch.scored_split import KEY, TEST, split_of, without_split
from genbench.launch.search_space import Space
from genbench.runs.files import first_line
from genbench.runs.score import higher_is_better

T = TypeVar("T")
SAMPLERS = ("tpe", "random", "cmaes", "grid")
SPLIT = "split"  # user attribute of a study: the split whose images score its trials
TABLE_ATTEMPTS = 5  # to open a database whose tables another coordinator is creating


# --- settings -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class SearchSettings:
    """What a search optimises, and how: the keys of hydra/sweeper=search."""

    objective: str | Sequence[str]
    n_trials: int
    sampler: str = "tpe"
    seed: int = 0
    storage: str | None = None
    prune_on: str | None = None
    prune_minimize: bool = True
    prune_after: int = 5
    batch: int = 1
    directions: Sequence[str] | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    on_test: bool = False
    seeds: int = 1  # runs of each trial, whose mean counts

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UserMistake(
                f"hydra.sweeper.sampler={self.sampler} is not one of {', '.join(SAMPLERS)}"
            )
        if not isinstance(self.n_trials, int) or self.n_trials < 1:
            raise UserMistake(f"hydra.sweeper.n_trials={self.n_trials} is not a number above 0")
        if not isinstance(self.seeds, int) or isinstance(self.seeds, bool) or self.seeds < 1:
            raise UserMistake(
                f"hydra.sweeper.seeds={self.seeds} is not a number above 0: it says how many seeds each trial has"
            )
        if self.seeds > 1 and self.prune_on:
            raise UserMistake(
                f"with hydra.sweeper.seeds={self.seeds} trials are pruned between seeds, by the mean of the objective so "
                "far: leave out hydra.sweeper.prune_on"
            )
        if len(self.objectives) > 1 and (self.prune_on or self.sampler == "cmaes"):
            raise UserMistake(
                "with several objectives there is no pruning and no cmaes: name one, or leave them out"
            )

    @property
    def objectives(self) -> list[str]:
        """Names of the scores to optimise."""
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)

    @property
    def study_directions(self) -> list[StudyDirection]:
        """Whether lower or higher is better, for each objective; UserMistake if not given for each."""
        words = self.directions or [_direction(name) for name in self.objectives]
        known = {w: StudyDirection[w.upper()] for w in ("minimize", "maximize")}
        if len(words) != len(self.objectives) or not set(words) <= set(known):
            raise UserMistake(
                f"hydra.sweeper.directions={words} must say minimize or maximize for each of "
                f"{', '.join(self.objectives)}"
            )
        return [known[word] for word in words]


def read_settings(kind: type[T], given: Mapping[str, Any]) -> T:
    """A sweeper's settings from its keys under hydra.sweeper; UserMistake for one that it does not have."""
    known = inspect.signature(kind).parameters
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserMistake(
            f"hydra.sweeper.{unknown[0]} is no setting of this sweeper (there are "
            f"{', '.join(sorted(known))}): leave it out, or choose an experiment that fits the sweeper"
        )
    plain = {
        k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in given.items()
    }
    return kind(**plain)


# --- storage -----------------------------------------------------------------------------------
def open_storage(url: str | None, outputs: Path, study: str) -> Any:
    """The storage of trials: a journal file (safe on NFS), by default in `outputs`, or one of Optuna's URLs.

    UserMistake if a database cannot be opened.
    """
    if url is None or "://" not in url:
        path = Path(url) if url else outputs / ".studies" / f"{study}.journal"
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(path))
        return optuna.storages.JournalStorage(backend)
    if url.startswith("postgresql://") and not _importable("psycopg2"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    if url.startswith("redis"):
        return optuna.storages.JournalStorage(JournalRedisBackend(url))
    try:
        return _open_database(url)
    except Exception as error:
        raise UserMistake(
            f"hydra.sweeper.storage={_without_password(url)} cannot be opened: {first_line(error)}"
        ) from error


def _open_database(url: str) -> Any:
    """Open a database; try again while another coordinator is creating the tables."""
    for attempt in range(TABLE_ATTEMPTS):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except Exception as error:
            being_made = any(word in str(error) for word in ("UniqueViolation", "DuplicateTable"))
            if not being_made or attempt == TABLE_ATTEMPTS - 1:
                raise
            time.sleep(0.5 * (attempt + 1))
    raise AssertionError("the last attempt returns or raises")


def _importable(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


# --- the study ----------------------------------------------------------------------------------
def open_study(
    settings: SearchSettings, space: Space, storage: Any, name: str, coordinator: str
) -> optuna.Study:
    """Create the study, with the shipped defaults as its first trials, or load it.

    A second coordinator samples with a seed of its own, so that it proposes other trials than the
    first. UserMistake if the study was begun with other objectives, fixed settings, ranges, or scores of
    another split.
    """
    plan = {
        "objectives": settings.objectives,
        "fixed": without_split(space.fixed),
        "space": space.described(),
        "seeds": [str(settings.seeds)],
    }
    split = split_of(space.fixed)
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, directions=settings.study_directions,
            sampler=_sampler(settings, settings.seed), pruner=_pruner(settings),
        )  # fmt: skip
    except optuna.exceptions.DuplicatedStudyError:
        seed = hash((settings.seed, coordinator)) % 2**31
        study = optuna.load_study(
            storage=storage, study_name=name,
            sampler=_sampler(settings, seed), pruner=_pruner(settings),
        )  # fmt: skip
        before = {"seeds": ["1"], **study.user_attrs.get("plan", plan)}  # of before: one
        _check_split(
            name, study.user_attrs.get(SPLIT, TEST if "plan" in study.user_attrs else split), split
        )
        _check_plan(name, {**before, "fixed": without_split(before["fixed"])}, plan)
        study.set_user_attr(SPLIT, split)  # a study of before has none
        return study
    study.set_user_attr(SPLIT, split)
    study.set_user_attr("plan", plan)
    if settings.sampler != "grid":
        for params in space.shipped_defaults():
            study.enqueue_trial(params, skip_if_exists=True)
    return study


def _check_split(name: str, before: str, now: str) -> None:
    if before == now:
        return
    as_before = f", or go on as it was begun with {KEY}={TEST} hydra.sweeper.on_test=true"
    raise UserMistake(
        f"the trials of study={name} were scored on the {before} split, not on the {now} split: its runs "
        "can be read and compared, but scores of both do not mix; choose another study"
        f"{as_before if before == TEST else ''}"
    )


def _check_plan(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key, old in before.items():
        if old != now[key]:
            raise UserMistake(
                f"study={name} has been searched with {key} {' '.join(old)}, not "
                f"{' '.join(now[key])}: choose another study, or the same settings"
            )


def _sampler(settings: SearchSettings, seed: int) -> optuna.samplers.BaseSampler:
    if settings.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if settings.sampler == "cmaes":
        if not _importable("cmaes"):
            raise UserMistake("hydra.sweeper.sampler=cmaes needs `pip install cmaes`")
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(settings: SearchSettings) -> optuna.pruners.BasePruner:
    if settings.prune_on is None and settings.seeds == 1:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=settings.prune_after)


def _direction(objective: str) -> str:
    return "maximize" if higher_is_better(objective.partition("@")[0]) else "minimize"
