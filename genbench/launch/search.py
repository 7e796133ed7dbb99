"""A search over settings: Optuna proposes, genbench runs; several coordinators may share a study.

The search space is written in Hydra's own grammar. `n_trials` is the study's total, so that the same
command continues a study, including what a coordinator that died had begun.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from genbench.errors import FAILED, GenbenchError, UserMistake
from genbench.launch.pool import Pool, PoolSettings, compose
from genbench.launch.scored_split import TEST, VALIDATION, with_split
from genbench.launch.search_seeds import VALUES, in_words
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
        running.total * running.settings.seeds,
        on_end,
        running.watch,
        running.space.fixed,
    )
    pool.run(
        None if run is None else (run[0], partial(compose, launcher, run[1], run[0]))
        for run in running.trials()
    )
    if pool.stopping:
        raise StopSweep


def _in_batches(launcher: Any, task: Any, running: Search) -> None:
    """Run batches: another launcher returns only when a whole batch has ended, so nothing is pruned."""
    trials = running.trials()
    while batch := _up_to(trials, running.settings.batch):
        returns = launcher.launch([overrides for _, overrides in batch], batch[0][0])
        task.collect(returns)
        for (number, _), back in zip(batch, returns, strict=True):
            try:
                job = back.return_value
            except Exception as error:
                raise GenbenchError(f"the launcher lost a trial: {error}") from error
            running.tell(number, job)


def _up_to(
    trials: Iterator[tuple[int, list[str]] | None], count: int
) -> list[tuple[int, list[str]]]:
    """The next runs, fewer than `count` where others wait for these."""
    found: list[tuple[int, list[str]]] = []
    while len(found) < count and (run := next(trials, None)) is not None:
        found.append(run)
    return found


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
        seeds = trial.user_attrs.get(VALUES) or [trial.values]
        values = in_words(search.settings.objectives, seeds)
        settings = " ".join(f"{k}={v}" for k, v in trial.params.items())
        lines.append(f"  {values}  {trial.user_attrs.get('run', '-')}  {settings}")
    if search.settings.seeds > 1:
        lines.append(
            f"each value is the mean ± sd over {search.settings.seeds} seeds; pruned trials had fewer, and the run named "
            "is that of the first"
        )
    split = study.user_attrs.get(SPLIT, VALIDATION)
    warning = ": better than on new images; report fresh seeds scored on others"
    lines.append(f"selected on {split} scores{warning if split == TEST else ''}")
    if search.settings.prune_on and not search.curve_seen:
        lines.append(f"no run logged {search.settings.prune_on} in history.csv: nothing was pruned")
    return "\n".join(lines)
