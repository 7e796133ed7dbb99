"""The trials of a search: Optuna proposes them, runs train them, and their scores go back to Optuna.

Several coordinators (processes running the same command) may share a study. Each writes a heartbeat
into it, and queues again the trials of a coordinator without a heartbeat. Optuna has heartbeats for
databases only, not for the journal file that is the default here.
"""

import contextlib
import math
import os
import socket
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from genbench.errors import DONE, UserMistake
from genbench.launch.pool import Running, request_stop
from genbench.launch.scored_split import split_of
from genbench.launch.search_seeds import VALUES, check_seeds, means, with_seed
from genbench.launch.search_space import Space
from genbench.launch.search_study import SearchSettings, open_study
from genbench.launch.task import EndedRun
from genbench.runs.history import last_value
from genbench.runs.priors import prior_of
from genbench.runs.result import read_result
from genbench.runs.score import Score
from genbench.runs.status import PRUNED, read_status, write_status

BEAT_SECONDS = 20.0
STALE_SECONDS = 120.0  # a coordinator whose last heartbeat is older is taken for dead
SURPLUS, LOST = "surplus", "lost"  # user attributes of trials that do not count


class Coordinator:
    """This process as a coordinator of a study: its name, and its heartbeat while entered."""

    def __init__(self) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, study: optuna.Study) -> None:
        """Write a heartbeat into the study every 20 s, until `stop`."""
        self._thread = threading.Thread(target=self._beat, args=(study,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the heartbeats."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def beat(self, study: optuna.Study) -> None:
        """Write one heartbeat."""
        study.set_user_attr(f"beat:{self.name}", time.time())

    def _beat(self, study: optuna.Study) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception):  # a database may be unreachable for a while
                self.beat(study)

    def has_lost(self, trial: FrozenTrial, beats: Mapping[str, Any]) -> bool:
        """Whether the coordinator of a running trial is dead; `beats` are the study's attributes."""
        owner = trial.user_attrs.get("coordinator")
        if owner is None:  # the coordinator is, or died, between `ask` and writing its name
            began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            return time.time() - began > STALE_SECONDS
        if owner == self.name:
            return False
        host, pid, _ = owner.split(":")
        if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
            return Path("/proc/self").exists()  # where there is no /proc nothing is known
        return bool(time.time() - beats.get(f"beat:{owner}", 0) >= STALE_SECONDS)


class Search:
    """One coordinator of a study: asks for trials, and tells Optuna how they ended.

    Used as a context manager. `storage` is Optuna's, `name` the study's.
    """

    def __init__(self, settings: SearchSettings, space: Space, storage: Any, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.settings, self.space, self.storage, self.name = settings, space, storage, name
        self.open: dict[int, Trial] = {}  # by number
        self.pruned: set[int] = set()
        self.curve_seen = False  # whether any run logged `prune_on`
        self._reported: dict[int, int] = {}  # images up to which a trial's curve was reported
        self._seen: dict[int, list[list[float]]] = {}  # objectives of each seed so far, by trial
        self._further: deque[int] = deque()  # trials whose next seed is to be run
        check_seeds(space, settings.seeds)
        self.coordinator = Coordinator()
        self.study = open_study(settings, space, storage, name, self.coordinator.name)
        self.coordinator.beat(self.study)

    def __enter__(self) -> "Search":
        self.coordinator.start(self.study)
        self.requeue_lost_trials()  # also the last ones of a study whose trials have all begun
        return self

    def __exit__(self, *error: Any) -> None:
        self.coordinator.stop()
        for trial in list(self.open.values()):  # left only after an interruption
            self.give_back(trial)

    def requeue_lost_trials(self) -> None:
        """Queue again the trials that dead coordinators had begun."""
        beats = self.study.user_attrs
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self.coordinator.has_lost(trial, beats):
                self.give_back(trial)

    def give_back(self, trial: Trial | FrozenTrial) -> None:
        """End a trial without a result, and queue its settings again."""
        self._close(trial.number)
        storage = self.storage
        study_id = storage.get_study_id_from_name(self.name)
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        try:
            storage.set_trial_user_attr(trial_id, LOST, True)
            ended = storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except (RuntimeError, ValueError):  # another coordinator was faster
            return
        if ended:
            self.study.enqueue_trial(dict(trial.params))

    def trials(self) -> Iterator[tuple[int, list[str]] | None]:
        """Numbers and overrides of runs, until all coordinators together have begun `total` trials.

        Of several seeds the next one of a trial that has begun comes first; None: nothing before a run has ended.
        """
        if self.settings.sampler == "grid":
            for params in self.space.grid():
                self.study.enqueue_trial(params, skip_if_exists=True)
        while self._further or self.counted() < self.total or (self.open and self._several):
            if self._further:
                number = self._further.popleft()
                yield number, self._overrides(number)
                continue
            if self.counted() >= self.total:
                yield None
                continue
            self.requeue_lost_trials()
            try:
                trial = self.study.ask(self.space.varying)
            except ValueError as error:
                raise UserMistake(
                    f"study={self.name} has been searched in another space ({error}): "
                    "choose another study"
                ) from error
            trial.set_user_attr("coordinator", self.coordinator.name)
            if self.counted(before=trial.number) >= self.total:  # another coordinator was faster
                trial.set_user_attr(SURPLUS, True)
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            self.open[trial.number] = trial
            yield trial.number, self._overrides(trial.number)

    def _overrides(self, number: int) -> list[str]:
        """Those of the next run of an open trial."""
        overrides = self.space.overrides(self.open[number].params)
        return with_seed(overrides, len(self._seen.get(number, ()))) if self._several else overrides

    @property
    def _several(self) -> bool:
        return self.settings.seeds > 1

    def _close(self, number: int) -> None:
        """Forget a trial that has ended, or is another coordinator's."""
        self.open.pop(number, None)
        self._seen.pop(number, None)
        self._further = deque(other for other in self._further if other != number)

    @property
    def total(self) -> int:
        """How many trials the study shall have: `n_trials`, or the grid's size if that is less."""
        if self.settings.sampler == "grid":
            return min(self.settings.n_trials, len(self.space.grid()))
        return self.settings.n_trials

    def counted(self, before: int | None = None) -> int:
        """Trials that were begun and not given back, of all or of those with a number below `before`."""
        return sum(
            t.state != TrialState.WAITING
            and not {SURPLUS, LOST} & set(t.user_attrs)
            and (before is None or t.number < before)
            for t in self.study.get_trials(deepcopy=False)
        )

    def tell(self, number: int, job: EndedRun) -> None:
        """Tell Optuna how a trial's run ended; without a finite score the trial has failed."""
        try:
            self._tell(number, job)
        except optuna.exceptions.UpdateFinishedTrialError:
            self._close(number)
            print(
                f"genbench: trial {number} was given to another coordinator, because this one wrote no "
                f"heartbeat for {STALE_SECONDS:.0f} s",
                file=sys.stderr,
            )

    def _tell(self, number: int, job: EndedRun) -> None:
        trial = self.open[number]
        if job.directory is not None and not self._seen.get(number):  # of several that of the first
            trial.set_user_attr("run", job.directory.name)
        if number in self.pruned:
            self._close(number)
            self.study.tell(trial, state=TrialState.PRUNED)
            _note_pruning(job.directory)
        elif job.asked_to_stop and job.exit_code != DONE:
            self.give_back(trial)
        else:
            values = self._values(job) if job.exit_code == DONE else None
            if values is None:
                self._close(number)
                reason = read_status(job.directory).reason if job.directory else None
                trial.set_user_attr("reason", reason or "it has no such score")
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self._count(trial, values)

    def _count(self, trial: Trial, values: list[float]) -> None:
        """Tell Optuna the mean over all seeds, or that the mean so far is hopeless; else queue the next seed."""
        seen = self._seen.setdefault(trial.number, [])
        seen.append(values)
        if self._several:
            trial.set_user_attr(VALUES, seen)
        if len(seen) < self.settings.seeds:
            if len(values) == 1:
                trial.report(means(seen)[0], len(seen))
            if len(values) > 1 or not trial.should_prune():
                self._further.append(trial.number)
                return
        self._close(trial.number)
        if len(seen) < self.settings.seeds:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, means(seen))

    def _values(self, job: EndedRun) -> list[float] | None:
        assert job.directory is not None
        scores = read_result(job.directory).scores
        split = split_of(self.space.fixed)
        found = [find_score(scores, name, split) for name in self.settings.objectives]
        values = [score.value for score in found if score is not None and score.value is not None]
        numbers = [v for v in values if math.isfinite(v)]
        if len(numbers) < len(self.settings.objectives):
            print(f"genbench: {job.directory.name}: no {self.settings.objective}", file=sys.stderr)
            return None
        return numbers

    def watch(self, number: int, run: Running) -> None:
        """Report the last point of a running trial's curve to Optuna; stop the run if it is pruned."""
        name, trial = self.settings.prune_on, self.open.get(number)
        if name is None or trial is None or run.asked_to_stop:
            return
        point = last_value(run.directory, name)
        if point is None or self._reported.get(number) == point[0]:
            return
        self._reported[number] = point[0]
        self.curve_seen = True
        images, value = point
        minimize = self.study.direction == StudyDirection.MINIMIZE
        trial.report(value if minimize == self.settings.prune_minimize else -value, images)
        if trial.should_prune():
            self.pruned.add(number)
            request_stop(run)


def _note_pruning(directory: Path | None) -> None:
    if directory is None or not directory.exists():
        return
    status = read_status(directory)
    if status.status == "interrupted":
        write_status(directory, replace(status, reason=PRUNED))


def find_score(scores: Sequence[Score], objective: str, split: str) -> Score | None:
    """The final score called `objective`, with or without the extractor in its name; None without one.

    Of an evaluation on `split`, and of the raw weights, or with `fd@ema` of the averaged ones.
    """
    name, _, weights = objective.partition("@")
    final = [
        score
        for score in scores
        if score.checkpoint == "final"
        and score.split == split
        and prior_of(score) is None
        and score.card.get("fake", {}).get("weights", "raw") == (weights or "raw")
    ]
    exact = [s for s in final if s.name in (name, f"{name}_{split}")]
    return next(iter(exact or [s for s in final if s.quantity == name]), None)
