"""A search over settings: Optuna proposes, genbench runs, several coordinators may share a study.

The search space is written in Hydra's own grammar. `n_trials` is a total, so that a study goes on
where it stood; what a coordinator that died had begun is taken up by the next one. Imports no torch.
"""

import contextlib
import itertools
import math
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from genbench.errors import DONE, FAILED, GenbenchError, UserMistake
from genbench.launch.pool import Pool, Running, ask, compose
from genbench.launch.pool import Settings as PoolSettings
from genbench.launch.search_space import Space
from genbench.launch.task import Job, StopSweep
from genbench.runs.history import last_value
from genbench.runs.result import read_result
from genbench.runs.score import Score, higher_is_better
from genbench.runs.status import PRUNED, read_status, write_status

SAMPLERS = ("tpe", "random", "cmaes", "grid")


BEAT_SECONDS = 20.0


STALE_SECONDS = 120.0  # a coordinator that was silent for so long is dead


TABLE_ATTEMPTS = 5  # to find the tables that another coordinator is just making


SURPLUS, LOST = "surplus", "lost"  # user attributes of trials that do not count


@dataclass(frozen=True)
class Settings:
    """What is searched for, and how."""

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

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UserMistake(
                f"hydra.sweeper.sampler={self.sampler} is not one of {', '.join(SAMPLERS)}"
            )
        if not isinstance(self.n_trials, int) or self.n_trials < 1:
            raise UserMistake(f"hydra.sweeper.n_trials={self.n_trials} is not a number above 0")
        if len(self.objectives) > 1 and (self.prune_on or self.sampler == "cmaes"):
            raise UserMistake(
                "with several objectives there is no pruning and no cmaes: name one, or leave them out"
            )

    @property
    def objectives(self) -> list[str]:
        """Names of scores."""
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)

    @property
    def ways(self) -> list[StudyDirection]:
        """Which way each objective is better."""
        words = self.directions or [direction(name) for name in self.objectives]
        known = {w: StudyDirection[w.upper()] for w in ("minimize", "maximize")}
        if len(words) != len(self.objectives) or not set(words) <= set(known):
            raise UserMistake(
                f"hydra.sweeper.directions={words} must say minimize or maximize for each of "
                f"{', '.join(self.objectives)}"
            )
        return [known[word] for word in words]


# --- the study ----------------------------------------------------------------------------------
def open_storage(url: str | None, outputs: Path, study: str) -> Any:
    """Where trials are kept: a journal file in `outputs` (safe on NFS), or any of Optuna's URLs."""
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
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserMistake(
            f"hydra.sweeper.storage={_without_password(url)} cannot be opened: {first}"
        ) from error


def _open_database(url: str) -> Any:
    """Open a database, again if another coordinator was making the same tables at this moment."""
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
    import importlib.util

    return importlib.util.find_spec(name) is not None


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


class Search:
    """One coordinator of a study: asks for trials, has them run, tells what came out."""

    def __init__(self, settings: Settings, space: Space, storage: Any, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.settings, self.space, self.name = settings, space, name
        self.me = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self.open: dict[int, Trial] = {}
        self.pruned: set[int] = set()
        self._reported: dict[int, int] = {}  # images at which a curve was last looked at
        self._over, self._curve_seen = threading.Event(), False
        self.study = self._open_study(storage)
        self._beat()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def _open_study(self, storage: Any) -> optuna.Study:
        directions = self.settings.ways
        plan = {"objectives": self.settings.objectives, "fixed": self.space.fixed}
        try:
            study = optuna.create_study(
                storage=storage, study_name=self.name, directions=directions,
                sampler=self._sampler(self.settings.seed), pruner=self._pruner(),
            )  # fmt: skip
        except optuna.exceptions.DuplicatedStudyError:
            seed = hash((self.settings.seed, self.me)) % 2**31  # not what others draw
            study = optuna.load_study(
                storage=storage, study_name=self.name,
                sampler=self._sampler(seed), pruner=self._pruner(),
            )  # fmt: skip
            self._check_plan(study.user_attrs.get("plan", plan), plan)
            return study
        study.set_user_attr("plan", plan)
        if self.settings.sampler != "grid":
            for params in self.space.authors():
                study.enqueue_trial(params, skip_if_exists=True)
        return study

    def _check_plan(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for key, old in before.items():
            if old != now[key]:
                raise UserMistake(
                    f"study={self.name} has been searched with {key} {' '.join(old)}, not "
                    f"{' '.join(now[key])}: choose another study, or the same settings"
                )

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self.settings.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        if self.settings.sampler == "cmaes":
            if not _importable("cmaes"):
                raise UserMistake("hydra.sweeper.sampler=cmaes needs `pip install cmaes`")
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return optuna.samplers.RandomSampler(seed=seed)

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.settings.prune_on is None:
            return optuna.pruners.NopPruner()
        return optuna.pruners.MedianPruner(n_startup_trials=self.settings.prune_after)

    def __enter__(self) -> "Search":
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._thread.join()
        for trial in list(self.open.values()):  # only after an interruption: to be taken up
            self.give_back(trial)

    # --- signs of life

    def _beat(self) -> None:
        self.study.set_user_attr(f"beat:{self.me}", time.time())

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception):  # a database that is away for a while
                self._beat()

    def _is_alive(self, coordinator: str, beats: Mapping[str, Any]) -> bool:
        if coordinator == self.me:
            return True
        host, pid, _ = coordinator.split(":")
        if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
            return not Path("/proc/self").exists()
        return bool(time.time() - beats.get(f"beat:{coordinator}", 0) < STALE_SECONDS)

    def take_up_the_lost(self) -> None:
        """Queue again what coordinators that are dead had begun."""
        beats = self.study.user_attrs
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get("coordinator")
            if owner is None:
                began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
                lost = time.time() - began > STALE_SECONDS
            else:
                lost = not self._is_alive(owner, beats)
            if lost:
                self.give_back(trial)

    def give_back(self, trial: Trial | FrozenTrial) -> None:
        """End a trial without a result, and queue its settings again."""
        self.open.pop(trial.number, None)
        storage, trial_id = self.study._storage, trial._trial_id
        try:
            storage.set_trial_user_attr(trial_id, LOST, True)
            ended = storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except (RuntimeError, ValueError):  # somebody else was faster
            return
        if ended:
            self.study.enqueue_trial(dict(trial.params))

    # --- trials

    def trials(self) -> Iterator[tuple[int, list[str]]]:
        """Trials until there are `n_trials` in all, other coordinators' included."""
        if self.settings.sampler == "grid":
            for params in self.space.grid():
                self.study.enqueue_trial(params, skip_if_exists=True)
        while self.counted() < self.total:
            self.take_up_the_lost()
            try:
                trial = self.study.ask(self.space.varying)
            except ValueError as error:
                raise UserMistake(
                    f"study={self.name} has been searched in another space ({error}): "
                    "choose another study"
                ) from error
            trial.set_user_attr("coordinator", self.me)
            if self.counted(before=trial.number) >= self.total:  # another one was faster
                trial.set_user_attr(SURPLUS, True)
                self.study.tell(trial, state=TrialState.FAIL)
                return
            self.open[trial.number] = trial
            yield trial.number, self.space.overrides(trial.params)

    @property
    def total(self) -> int:
        """Trials that there shall be: a grid has an end of its own."""
        if self.settings.sampler == "grid":
            return min(self.settings.n_trials, len(self.space.grid()))
        return self.settings.n_trials

    def counted(self, before: int | None = None) -> int:
        """Trials that have been begun and not been given back."""
        return sum(
            t.state != TrialState.WAITING
            and not {SURPLUS, LOST} & set(t.user_attrs)
            and (before is None or t.number < before)
            for t in self.study.get_trials(deepcopy=False)
        )

    def tell(self, number: int, job: Job) -> None:
        """Tell what came out: no number is no end, but a failed trial."""
        try:
            self._tell(number, job)
        except optuna.exceptions.UpdateFinishedTrialError:
            self.open.pop(number, None)
            print(
                f"genbench: trial {number} was given to another coordinator, because this one was "
                f"silent for {STALE_SECONDS:.0f} s",
                file=sys.stderr,
            )

    def _tell(self, number: int, job: Job) -> None:
        trial = self.open[number]
        if job.directory is not None:
            trial.set_user_attr("run", job.directory.name)
        if number in self.pruned:
            self.open.pop(number)
            self.study.tell(trial, state=TrialState.PRUNED)
            _note_pruning(job.directory)
        elif job.asked and job.code != DONE:
            self.give_back(trial)
        else:
            self.open.pop(number)
            values = self._values(job) if job.code == DONE else None
            if values is None:
                reason = read_status(job.directory).reason if job.directory else None
                trial.set_user_attr("reason", reason or "it has no such score")
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, values)

    def _values(self, job: Job) -> list[float] | None:
        assert job.directory is not None
        scores = read_result(job.directory).scores
        found = [find_score(scores, name) for name in self.settings.objectives]
        values = [score.value for score in found if score is not None and score.value is not None]
        numbers = [v for v in values if math.isfinite(v)]
        if len(numbers) < len(self.settings.objectives):
            print(f"genbench: {job.directory.name}: no {self.settings.objective}", file=sys.stderr)
            return None
        return numbers

    def watch(self, number: int, run: Running) -> None:
        """Report a running trial's curve, and ask it to stop if it is hopeless."""
        name, trial = self.settings.prune_on, self.open.get(number)
        if name is None or trial is None or run.asked:
            return
        point = last_value(run.directory, name)
        if point is None or self._reported.get(number) == point[0]:
            return
        self._reported[number] = point[0]
        self._curve_seen = True
        images, value = point
        minimize = self.study.direction == StudyDirection.MINIMIZE
        trial.report(value if minimize == self.settings.prune_minimize else -value, images)
        if trial.should_prune():
            self.pruned.add(number)
            ask(run)

    def summary(self) -> str:
        """The best trial, or the Pareto set of several objectives."""
        trials = [t for t in self.study.get_trials(deepcopy=False) if LOST not in t.user_attrs]
        states = {s: sum(t.state == s for t in trials) for s in TrialState}
        surplus = sum(SURPLUS in t.user_attrs for t in trials)
        lines = [
            "",
            f"study {self.name}: {states[TrialState.COMPLETE]} trials complete, "
            f"{states[TrialState.PRUNED]} pruned, {states[TrialState.FAIL] - surplus} failed",
        ]
        if not states[TrialState.COMPLETE]:
            return "\n".join([*lines, "no trial has a score yet"])
        best = sorted(self.study.best_trials, key=lambda t: t.values)
        several = len(self.settings.objectives) > 1
        lines.append("Pareto set, none better in everything:" if several else "best trial:")
        for trial in best if several else best[:1]:
            values = " ".join(
                f"{n}={v:.4g}" for n, v in zip(self.settings.objectives, trial.values, strict=True)
            )
            settings = " ".join(f"{k}={v}" for k, v in trial.params.items())
            lines.append(f"  {values}  {trial.user_attrs.get('run', '-')}  {settings}")
        if self.settings.prune_on and not self._curve_seen:
            lines.append(
                f"no run logged {self.settings.prune_on} in history.csv: nothing was pruned"
            )
        return "\n".join(lines)


def _note_pruning(directory: Path | None) -> None:
    if directory is None or not directory.exists():
        return
    status = read_status(directory)
    if status.status == "interrupted":
        write_status(directory, type(status)(**{**vars(status), "reason": PRUNED}))


def direction(objective: str) -> str:
    """Which way a score is better."""
    return "maximize" if higher_is_better(objective) else "minimize"


def find_score(scores: Sequence[Score], objective: str) -> Score | None:
    """The final score of that name; without an extractor in the name, that of the run's own."""
    final = [s for s in scores if s.checkpoint == "final"]
    exact = [s for s in final if s.name == objective]
    return next(iter(exact or [s for s in final if s.quantity == objective]), None)


# --- Hydra's side -------------------------------------------------------------------------------
def search(sweeper: Any, arguments: Sequence[str]) -> None:
    """Run a search: `arguments` are the user's overrides. Raises StopSweep on Ctrl-C."""
    settings = Settings(**sweeper.settings)
    config = sweeper.config
    if config.study is None:
        raise UserMistake("a search needs a name under which it can go on: add study=NAME")
    space = Space.read([*(f"{k}={v}" for k, v in settings.params.items()), *arguments])
    outputs = Path(os.path.expanduser(str(config.paths.outputs)))
    storage = open_storage(settings.storage, outputs, str(config.study))
    task = sweeper.task
    task.tolerant = True
    try:
        with Search(settings, space, storage, str(config.study)) as running:
            if running.counted() >= running.total:
                print(f"genbench: {running.total} trials are there: raise hydra.sweeper.n_trials")
            if hasattr(sweeper.launcher, "task"):
                _in_the_pool(sweeper.launcher, running)
            else:
                _in_batches(sweeper.launcher, task, running)
    except (optuna.exceptions.StorageInternalError, OSError) as error:
        raise GenbenchError(
            f"the storage of study={config.study} is gone ({str(error).splitlines()[0]}): once it is "
            "back, the same command goes on"
        ) from error
    except StopSweep:
        print(running.summary())
        raise
    print(running.summary())


def _in_the_pool(launcher: Any, running: Search) -> None:
    task = launcher.task

    def on_end(number: int, job: Job) -> None:
        stopped = number in running.pruned  # by the search, not by a person
        task.add(replace(job, code=FAILED, asked=False) if stopped else job)
        running.tell(number, job)

    pool = Pool(
        task.worker,
        PoolSettings(**launcher.settings),
        running.total,
        on_end,
        running.watch,
        running.space.fixed,
    )
    pool.run((n, partial(compose, launcher, overrides, n)) for n, overrides in running.trials())
    if pool.stopping:
        raise StopSweep


def _in_batches(launcher: Any, task: Any, running: Search) -> None:
    """Another launcher takes a batch and says nothing until all of it has ended: no pruning."""
    trials = running.trials()
    while batch := list(itertools.islice(trials, running.settings.batch)):
        returns = launcher.launch([overrides for _, overrides in batch], batch[0][0])
        task.collect(returns)
        for (number, _), back in zip(batch, returns, strict=True):
            try:
                job = back.return_value
            except Exception as error:
                raise GenbenchError(f"the launcher lost a trial: {error}") from error
            running.tell(number, job)
