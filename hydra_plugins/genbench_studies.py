"""Genbench's launcher and sweepers, as Hydra finds them; the work is done in genbench.

Every Hydra application on this machine loads this module, so it imports nothing but Hydra.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(BasicSweeper):
    """`hydra/sweeper=grid`: every combination, with the runs that other processes did collected."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep the task, which sums up."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.launcher = _Collecting(self.launcher, task_function)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every value once before anything runs: a thousand jobs would take minutes."""
        seen: set[str] = set()
        chosen = []
        for job in batch:
            if not seen.issuperset(job):
                chosen.append(job)
                seen.update(job)
        super().validate_batch_is_legal(chosen)


class _Collecting(Launcher):
    """A launcher whose results are noted by genbench's task."""

    def __init__(self, launcher: Any, task: Any) -> None:
        self._launcher, self._task = launcher, task

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Done already."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Launch, and note."""
        returns: Sequence[JobReturn] = self._launcher.launch(job_overrides, initial_job_idx)
        self._task.collect(returns)
        return returns


class SearchSweeper(Sweeper):
    """`hydra/sweeper=search`: Optuna proposes the runs."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Make the launcher."""
        self.task, self.config = task_function, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search; raises what ends a sweep."""
        if importlib.util.find_spec("optuna") is None:
            from genbench.errors import UserMistake

            raise UserMistake("hydra/sweeper=search needs Optuna: pip install 'genbench[search]'")
        from genbench.launch import search

        search.search(self, arguments)


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
