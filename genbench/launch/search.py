"""A search over settings: Optuna proposes, genbench runs; several coordinators may share a study.

The search space is written in Hydra's own grammar. `n_trials` is the study's total, so that the same
command continues a study, including what a coordinator that died had begun.
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from genbench.errors import FAILED, GenbenchError, UserMistake
from genbench.launch.pool import Pool, PoolSettings, compose
from genbench.launch.scored_split import TEST, VALIDATION, with_split
from genbench.launch.search_space import Space
from genbench.launch.search_study import SPLIT, SearchSettings, open_storage, read_settings
from genbench.launch.search_trials import LOST, SURPLUS, Search
from genbench.launch.task import EndedRun, StopSweep
from genbench.runs.files import first_line


def search(sweeper: Any, arguments: Sequence[str]) -> None:
    """Run the search of a SearchSweeper; `arguments` are the overrides. StopSweep on Ctrl-C.

    Raises GenbenchError when the storage is lost, UserMistake for settings that do not fit.
    """
    settings = read_settings(SearchSettings, sweeper.settings)
    config = sweeper.config
    if config.study is None:
        raise UserMistake("a search needs a name, by which it can be continued: add study=NAME")
    given = [*(f"{k}={v}" for k, v in settings.params.items()), *arguments]
    space = Space.read(with_split(given, settings.on_test))
    name = str(config.study)
    storage = open_storage(settings.storage, outputs_of(config), name)
    run_search(sweeper.launcher, sweeper.task, settings, space, storage, name)


def outputs_of(config: Any) -> Path:
    """The folder of the runs of a sweep with this config."""
    return Path(os.path.expanduser(str(config.paths.outputs)))


def run_search(
    launcher: Any, task: Any, settings: SearchSettings, space: Space, storage: Any, name: str
) -> Search:
    """Run the trials that study `name` lacks, print its summary, and return the search.

    Raises StopSweep on Ctrl-C, GenbenchError when the storage is lost, UserMistake as `open_study`.
    """
    task.tolerant = True
    try:
        with Search(settings, space, storage, name) as running:
            if running.counted() >= running.total:
                print(f"genbench: {running.total} trials are there: raise hydra.sweeper.n_trials")
            if hasattr(launcher, "task"):
                _in_the_pool(launcher, running)
            else:
                _in_batches(launcher, task, running)
    except (optuna.exceptions.StorageInternalError, OSError) as error:
        raise GenbenchError(
            f"the storage of study={name} was lost ({first_line(error)}): once it is "
            "back, the same command continues the search"
        ) from error
    except StopSweep:
        print(summary(running))
        raise
    print(summary(running))
    return running


def _in_the_pool(launcher: Any, running: Search) -> None:
    task = launcher.task

    def on_end(number: int, job: EndedRun) -> None:
        stopped = number in running.pruned  # by the search, not by the user
        task.add(replace(job, exit_code=FAILED, asked_to_stop=False) if stopped else job)
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
    """Run batches: another launcher returns only when a whole batch has ended, so nothing is pruned."""
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


def summary(search: Search) -> str:
    """Text of the best trial, or of the Pareto set of several objectives."""
    study = search.study
    trials = [t for t in study.get_trials(deepcopy=False) if LOST not in t.user_attrs]
    states = {s: sum(t.state == s for t in trials) for s in TrialState}
    surplus = sum(SURPLUS in t.user_attrs for t in trials)
    lines = [
        "",
        f"study {search.name}: {states[TrialState.COMPLETE]} trials complete, "
        f"{states[TrialState.PRUNED]} pruned, {states[TrialState.FAIL] - surplus} failed",
    ]
    if not states[TrialState.COMPLETE]:
        return "\n".join([*lines, "no trial has a score yet"])
    best = sorted(study.best_trials, key=lambda t: t.values)
    several = len(search.settings.objectives) > 1
    lines.append("Pareto set, none better in everything:" if several else "best trial:")
    for trial in best if several else best[:1]:
        values = " ".join(
            f"{n}={v:.4g}" for n, v in zip(search.settings.objectives, trial.values, strict=True)
        )
        settings = " ".join(f"{k}={v}" for k, v in trial.params.items())
        lines.append(f"  {values}  {trial.user_attrs.get('run', '-')}  {settings}")
    split = study.user_attrs.get(SPLIT, VALIDATION)
    warning = ": better than on new images; report fresh seeds scored on others"
    lines.append(f"selected on {split} scores{warning if split == TEST else ''}")
    if search.settings.prune_on and not search.curve_seen:
        lines.append(f"no run logged {search.settings.prune_on} in history.csv: nothing was pruned")
    return "\n".join(lines)
