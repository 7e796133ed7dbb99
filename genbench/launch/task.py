"""From a command line to a run: Hydra composes, a directory is made, one worker is started.

Nothing here imports torch, so a typo is answered at once. Under torchrun or srun the launch is
theirs: every rank comes through here, rank 0 makes the directory (its name must be known to all:
`run_id=NAME`, or the step's number under srun), the others wait for it.
"""

import contextlib
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genbench.errors import DONE, FAILED, INTERRUPTED, MISTAKE, GenbenchError, UserMistake
from genbench.launch import mistakes, settings
from genbench.launch.earlier_runs import Backlog
from genbench.launch.resumption import restarted
from genbench.launch.run import Plan, begun_before, see_through
from genbench.launch.worker import external_launch
from genbench.runs import paths
from genbench.runs.status import read_status


# --- train --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Job:
    """One run of a command, and how it ended; `asked`: somebody wanted it to stop."""

    overrides: Sequence[str]
    directory: Path | None
    code: int
    asked: bool
    seconds: float
    found: bool = False  # it was there before


class StopSweep(BaseException):
    """Ends a sweep after an interruption; no Exception, because Hydra collects those."""


class Task:
    """What Hydra calls once for every run of a command.

    Launchers may send it to other processes and machines, which know nothing of `jobs`; a sweeper
    hands what comes back to `collect`.
    """

    def __init__(self, argv: Sequence[str], worker: str) -> None:
        self.argv, self.worker = list(argv), worker
        self.jobs: list[Job] = []
        self._backlogs: dict[tuple[Path, str], Backlog] = {}
        self._memory: dict[Any, Any] = {}
        self._here = True
        self.tolerant = False  # a search: failures are among its results

    def __getstate__(self) -> dict[str, Any]:
        """Travel light."""
        return {**self.__dict__, "jobs": [], "_backlogs": {}, "_memory": {}, "_here": False}

    def __call__(self, cfg: DictConfig) -> Job:
        """See one run through; a failure is told, not raised, so that a sweep goes on."""
        began = time.monotonic()
        try:
            plan = self.plan(cfg)
            directory, code, asked = see_through(plan, self.worker)
            job = Job(plan.overrides, directory, code, asked, time.monotonic() - began, plan.found)
        except GenbenchError as error:
            job = refused(_task_overrides(), error)
        if self._here:
            self.add(job)
            if job.asked or job.code == INTERRUPTED:
                raise StopSweep
        return job

    def plan(self, cfg: DictConfig) -> Plan:
        """Check and resolve what Hydra composed; what a study has already is not run again."""
        overrides, sweep = _task_overrides(), HydraConfig.get().mode == RunMode.MULTIRUN
        if sweep and self._here and HydraConfig.get().runtime.choices["hydra/launcher"] == "basic":
            print(f"\ngenbench: {' '.join(overrides)}", file=sys.stderr, flush=True)
        settings.check_values(overrides, HydraConfig.get().job.config_name or "train", self._memory)
        config = resolve(cfg)
        plan = Plan(overrides, config, _command(self.argv, overrides, sweep))
        again = sweep or (restarted() and not external_launch())
        if config["run_id"] is not None or config["study"] is None or not again:
            return begun_before(plan)
        key = Path(config["paths"]["outputs"]), str(config["study"])
        if key not in self._backlogs or self.tolerant:  # others may work on a search
            self._backlogs[key] = Backlog(*key)
        earlier = self._backlogs[key].find(config)
        if earlier is None:
            return plan
        return replace(plan, directory=earlier.directory, found=not earlier.resumable)

    def add(self, job: Job) -> None:
        """Note how a run ended."""
        self.jobs.append(job)

    def collect(self, returns: Sequence[JobReturn]) -> None:
        """Note what came back from other processes."""
        for back in returns:
            try:
                job = back.return_value
            except Exception as error:  # whatever the launcher's own machinery says
                text = f"{type(error).__name__}: {error}"
                job = refused(list(back.overrides or []), GenbenchError(text))
            if isinstance(job, Job) and job not in self.jobs:
                self.add(job)


def refused(overrides: Sequence[str], error: GenbenchError) -> Job:
    """Tell of a run that could not start."""
    print(f"genbench: {error}", file=sys.stderr)
    if os.environ.get("GENBENCH_DEBUG") == "1":
        traceback.print_exception(error)
    return Job(overrides, None, error.exit_code, False, 0.0)


def train(argv: Sequence[str], worker: str = "genbench.train") -> int:
    """Train what `argv` asks for: overrides and Hydra's flags. Returns the exit code.

    `worker` is the module that is given the run directory. Raises GenbenchError.
    """
    task = Task(argv, worker)
    decorate = hydra.main(
        config_path=str(paths.config_root()), config_name="train", version_base="1.3"
    )
    try:
        with _sweep_directory(argv) as arguments, _as_command_line("genbench train", arguments):
            decorate(task)()
    except StopSweep:
        pass
    except Exception as error:
        raise mistakes.explain(error, _overrides(argv), paths.config_root()) from error
    sweep = is_sweep(argv)
    if sweep and task.jobs:
        print(_summary(task.jobs))
    jobs = task.jobs
    if task.tolerant and any(job.code == DONE for job in jobs):
        jobs = [job for job in jobs if job.code in (DONE, INTERRUPTED)]
    return _exit_code(jobs, sweep)


def is_sweep(argv: Sequence[str]) -> bool:
    """Tell whether these arguments ask for several runs."""
    return any(a in ("-m", "--multirun") or a.startswith("hydra.mode=MULTIRUN") for a in argv)


@contextlib.contextmanager
def _sweep_directory(argv: Sequence[str]) -> Iterator[list[str]]:
    """Give a sweep the directory that Hydra wants for it, and that runs have no use for."""
    if not is_sweep(argv) or any(a.startswith("hydra.sweep.dir=") for a in argv):
        yield [*argv]
        return
    with tempfile.TemporaryDirectory(prefix="genbench-sweep-") as scratch:
        yield [*argv, f"hydra.sweep.dir='{scratch}'"]


@contextlib.contextmanager
def _as_command_line(program: str, argv: Sequence[str]) -> Iterator[None]:
    """Let Hydra read `argv` as if it were a program of its own, and raise instead of printing."""
    before, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [program, *argv], "1"
    try:
        yield
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _overrides(argv: Sequence[str]) -> list[str]:
    """The settings among the arguments; --config-dir as the setting that does the same."""
    overrides = [a for a in argv if "=" in a and not a.startswith("-")]
    for flag, value in zip(argv, argv[1:], strict=False):
        if flag in ("--config-dir", "-cd"):
            overrides.append(f"hydra.searchpath=[file://{Path(value).resolve()}]")
    return overrides


def _task_overrides() -> list[str]:
    """What the user set for the job that Hydra is at."""
    overrides: list[str] = OmegaConf.to_container(  # type: ignore[assignment]
        HydraConfig.get().overrides.task, resolve=False
    )
    return overrides


def _command(argv: Sequence[str], overrides: Sequence[str], sweep: bool) -> str:
    """The command line that does this run alone."""
    if not sweep:
        return "genbench train " + shlex.join(argv) if argv else "genbench train"
    flags: list[str] = []
    for flag, value in zip(argv, argv[1:], strict=False):
        if flag in ("--config-dir", "-cd", "--config-name", "-cn"):
            flags += [flag, value]
    return "genbench train " + shlex.join([*flags, *overrides])


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Turn a composition into plain values; paths become absolute, so that the run can move on."""
    try:
        for name, path in list(cfg.paths.items()):
            if path is not None:
                cfg.paths[name] = os.path.abspath(os.path.expanduser(str(path)))
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserMistake(mistakes.explain_value(error)) from error
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _summary(jobs: Sequence[Job]) -> str:
    words = {DONE: "finished", MISTAKE: "refused", INTERRUPTED: "interrupted"}
    lines = ["", f"{sum(job.code == DONE for job in jobs)} of {len(jobs)} runs finished"]
    for job in jobs:
        kept = job.directory if job.directory is not None and job.directory.exists() else None
        state = read_status(kept).status if kept else words.get(job.code, "failed")
        settings = " ".join(job.overrides) + (" (there already)" if job.found else "")
        lines.append(
            f"  {state:<12} {job.seconds:7.0f} s  {kept.name if kept else '-':<24} {settings}"
        )
    return "\n".join(lines)


def _exit_code(jobs: Sequence[Job], sweep: bool) -> int:
    codes = {job.code for job in jobs}
    if INTERRUPTED in codes or (sweep and any(job.asked for job in jobs)):
        return INTERRUPTED
    if len(codes) <= 1:
        return codes.pop() if codes else DONE
    return FAILED
