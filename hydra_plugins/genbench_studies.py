"""Genbench's launcher and sweepers, where Hydra looks for plugins; `genbench.launch` does the work.

Every Hydra application on this machine loads this module, so it imports nothing but Hydra.
"""

import importlib.util
import itertools
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class GridSweeper(Sweeper):
    """`hydra/sweeper=grid`: every combination of the values; genbench's task collects the results.

    `also` has for an override such as `model=vae` further ones, which the jobs with it get; of a comma list
    there each value makes a job.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: Mapping[str, str] | None = None,
        also: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.max_batch_size, self.params, self.also = max_batch_size, params or {}, also or {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Make the launcher."""
        self.hydra_context, self.task, self.config = hydra_context, task_function, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run all jobs in batches of `max_batch_size`; raises what ends a sweep."""
        assert self.config is not None and self.launcher is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        jobs = self._jobs([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        size = self.max_batch_size or len(jobs)
        returns = []
        for start in range(0, len(jobs), size):
            batch = jobs[start : start + size]
            self.validate_batch_is_legal(batch)
            returns.append(self.launcher.launch(batch, initial_job_idx=start))
            self.task.collect(returns[-1])  # type: ignore[attr-defined]  # genbench's Task has it
            for job in returns[-1]:
                _ = job.return_value  # raises if the launcher lost the job
        return returns

    def _jobs(self, arguments: Sequence[str]) -> list[list[str]]:
        """The overrides of each job; of several arguments for a key the last one counts."""
        values = self._values(arguments)
        jobs = [list(job) for job in itertools.product(*values.values())]
        return [[*added, *job] for job in jobs for added in self._added(job, set(values))]

    def _values(self, arguments: Sequence[str]) -> dict[str, list[str]]:
        """The overrides of each key, one for each of its values."""
        assert self.hydra_context is not None
        values: dict[str, list[str]] = {}
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        for override in parser.parse_overrides(list(arguments)):
            key = override.get_key_element()
            if not override.is_sweep_override():
                values[key] = [f"{key}={override.get_value_element_as_str()}"]
            elif override.is_discrete_sweep():
                values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            else:
                raise HydraException(
                    f"{override.input_line} names no values to run: write a comma list or "
                    "range(low,high,step), or add hydra/sweeper=search"
                )
        return values

    def _added(self, job: Sequence[str], given: Set[str]) -> list[list[str]]:
        """What `also` adds to a job, except what is `given` for all jobs: a list for each job of its values."""
        added = (item for part, more in self.also.items() if part in job for item in more.items())
        own = [f"{key}={value}" for key, value in added if key not in given]
        return [list(more) for more in itertools.product(*self._values(own).values())]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose until each value has occurred, before anything runs; all jobs would take minutes."""
        seen: set[str] = set()
        chosen = []
        for job in batch:
            if not seen.issuperset(job):
                chosen.append(job)
                seen.update(job)
        super().validate_batch_is_legal(chosen)


class SearchSweeper(Sweeper):
    """`hydra/sweeper=search`: Optuna proposes the runs."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Make the launcher."""
        self.hydra_context, self.task, self.config = hydra_context, task_function, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search; raises what ends a sweep, UserMistake without Optuna."""
        _check_optuna("search")
        from genbench.launch import search

        search.search(self, arguments)


class TunedSweeper(SearchSweeper):
    """`hydra/sweeper=tuned`: the same search for each model, then fresh seeds at the winners."""

    def sweep(self, arguments: list[str]) -> None:
        """Run all of it; raises what ends a sweep, UserMistake without Optuna."""
        _check_optuna("tuned")
        from genbench.launch import tuned

        tuned.tune(self, arguments)


def _check_optuna(sweeper: str) -> None:
    if importlib.util.find_spec("optuna") is None:
        from genbench.errors import UserMistake

        raise UserMistake(f"hydra/sweeper={sweeper} needs Optuna: pip install 'genbench[search]'")


class PoolLauncher(Launcher):
    """`hydra/launcher=pool`: as many runs at once as this machine has room for."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what composing a job needs."""
        self.hydra_context, self.task, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs; raises what ends a sweep."""
        from genbench.launch import pool

        return pool.launch(self, job_overrides, initial_job_idx)
