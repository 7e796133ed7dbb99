"""`genbench train`: Hydra composes the config of each run, and a worker process trains it.

Imports no torch, so that a typo is reported at once.
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
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genbench.errors import DONE, FAILED, INTERRUPTED, MISTAKE, GenbenchError, UserMistake
from genbench.launch import mistakes, settings
from genbench.launch.earlier_runs import EarlierRuns
from genbench.launch.resumption import restarted
from genbench.launch.run import RunPlan, execute, restarted_plan
from genbench.launch.worker import external_launch
from genbench.runs import paths
from genbench.runs.config import read_config
from genbench.runs.moved import renamed
from genbench.runs.status import read_status
from genbench.runs.versions import versions, with_versions

SEARCHES = ("search", "tuned")  # sweepers that make no sense for a single run


# --- train --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class EndedRun:
    """One run of a command: its directory, exit code and duration."""

    overrides: Sequence[str]
    directory: Path | None  # None if it was refused
    exit_code: int
    asked_to_stop: bool
    seconds: float
    existed: bool = False  # an earlier command has done or is doing it
    trial: bool = False  # of a search: its failure is a result


class StopSweep(BaseException):
    """Raised to end a sweep after an interruption. A BaseException, because Hydra catches Exceptions of jobs."""


class Task:
    """The task function that Hydra calls for every run of a command; `jobs` are the runs that ended.

    Launchers may pickle it to other processes and machines. The `jobs` of those copies are lost, so a
    sweeper passes what a launcher returns to `collect`.
    """

    def __init__(self, argv: Sequence[str], worker: str) -> None:
        self.argv, self.worker = list(argv), worker
        self.jobs: list[EndedRun] = []
        # by outputs and study, each with the time at which a run was last added
        self._earlier: dict[tuple[Path, str], tuple[int | None, EarlierRuns]] = {}
        self._cache: dict[Any, Any] = {}
        self._is_original = True  # False in a copy that was pickled to another process
        self.tolerant = False  # while a search runs: its trials may fail

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without results and caches."""
        return {**self.__dict__, "jobs": [], "_earlier": {}, "_cache": {}, "_is_original": False}

    def __call__(self, cfg: DictConfig) -> EndedRun:
        """Execute one run. A failure is printed and returned, so that a sweep continues."""
        began = time.monotonic()
        try:
            plan = self.plan(cfg)
            directory, code, asked = execute(plan, self.worker)
            job = EndedRun(
                plan.overrides, directory, code, asked, time.monotonic() - began, plan.complete
            )
        except GenbenchError as error:
            job = refused(_task_overrides(), error)
        if self._is_original:
            self.add(job)
            if job.asked_to_stop or job.exit_code == INTERRUPTED:
                raise StopSweep
        return job

    def plan(self, cfg: DictConfig) -> RunPlan:
        """Check and resolve a composition. A run that its study already has is resumed or not repeated."""
        overrides, sweep = _task_overrides(), HydraConfig.get().mode == RunMode.MULTIRUN
        if (
            sweep
            and self._is_original
            and HydraConfig.get().runtime.choices["hydra/launcher"] == "basic"
        ):
            print(f"\ngenbench: {' '.join(overrides)}", file=sys.stderr, flush=True)
        settings.check_values(overrides, HydraConfig.get().job.config_name or "train", self._cache)
        mistakes.check_groups(cfg, _overrides(self.argv))
        sweeper = HydraConfig.get().runtime.choices["hydra/sweeper"]
        if not sweep and sweeper in SEARCHES:
            raise UserMistake(
                f"hydra/sweeper={sweeper} runs many trainings, and without -m there would be one: add -m"
            )
        config = resolve(cfg)
        plan = RunPlan(overrides, config, _command(self.argv, overrides, sweep))
        again = sweep or (restarted() and not external_launch())
        if config["run_id"] is not None or config["study"] is None or not again:
            return restarted_plan(plan)
        key = Path(config["paths"]["outputs"]), str(config["study"])
        earlier = self._earlier_runs(*key).find(config)
        if earlier is None:
            return plan
        return replace(plan, earlier=earlier.directory, complete=not earlier.resumable)

    def _earlier_runs(self, outputs: Path, study: str) -> EarlierRuns:
        """The runs of the study; read again if runs were added, by another command beside this one too."""
        try:
            changed = os.stat(outputs).st_mtime_ns
        except OSError:
            changed = None
        known = self._earlier.get((outputs, study))
        if known is None or known[0] != changed or self.tolerant:  # a search: other coordinators
            known = self._earlier[outputs, study] = changed, EarlierRuns(outputs, study)
        return known[1]

    def add(self, job: EndedRun) -> None:
        """Record a run that ended."""
        self.jobs.append(replace(job, trial=self.tolerant))

    def collect(self, returns: Sequence[JobReturn]) -> None:
        """Record the results that a launcher returned from other processes; an exception counts as a refused run."""
        for back in returns:
            try:
                job = back.return_value
            except Exception as error:  # a launcher may raise anything
                text = f"{type(error).__name__}: {error}"
                job = refused(list(back.overrides or []), GenbenchError(text))
            if isinstance(job, EndedRun) and replace(job, trial=self.tolerant) not in self.jobs:
                self.add(job)


def refused(overrides: Sequence[str], error: GenbenchError) -> EndedRun:
    """Print why a run could not start, and return it as ended."""
    print(f"genbench: {error}", file=sys.stderr)
    if os.environ.get("GENBENCH_DEBUG") == "1":
        traceback.print_exception(error)
    return EndedRun(overrides, None, error.exit_code, False, 0.0)


def train(argv: Sequence[str], worker: str = "genbench.work train") -> int:
    """Train what `argv` asks for: overrides and Hydra's flags. Returns the exit code.

    `worker` is the module (with its first argument) that trains, in a process of its own.
    Raises GenbenchError.
    """
    return exit_code_of(ended_runs(argv, worker), is_sweep(argv))


def ended_runs(argv: Sequence[str], worker: str = "genbench.work train") -> list[EndedRun]:
    """As `train`; returns the runs. Of those of a sweep a summary is printed."""
    task, stopped = Task(argv, worker), False
    decorate = hydra.main(
        config_path=str(paths.config_root()), config_name="train", version_base="1.3"
    )
    try:
        with (
            _sweep_directory(_deferred(argv)) as arguments,
            _as_command_line("genbench train", arguments),
        ):
            decorate(task)()
    except StopSweep:
        stopped = True
    except Exception as error:
        raise mistakes.explain(error, _overrides(argv)) from error
    if is_sweep(argv) and task.jobs:
        print(summary(task.jobs))
        if stopped and any(map(_has_study, task.jobs)):
            print("stopped: the same command goes on, also with the runs that had not begun")
    return task.jobs


def _has_study(job: EndedRun) -> bool:
    try:
        return bool(job.directory and read_config(job.directory).get("study"))
    except GenbenchError:  # it was deleted meanwhile
        return False


def is_sweep(argv: Sequence[str]) -> bool:
    """Whether these arguments ask for several runs."""
    return any(a in ("-m", "--multirun") or a.startswith("hydra.mode=MULTIRUN") for a in argv)


def _deferred(argv: Sequence[str]) -> list[str]:
    """Write settings of a swept group as sweeps of one value, `model.gamma=choice(0.1)`.

    Before it makes the jobs, Hydra composes the overrides that are not swept, without the swept groups: it
    would look for model.gamma in the default model.
    """
    if not is_sweep(argv) or any(a.startswith(("hydra/sweeper=", "experiment=")) for a in argv):
        return [*argv]
    swept = {key for key, _, value in (a.partition("=") for a in argv) if "," in value}
    if "dataset" in swept:  # picks these
        swept |= {"network", "extractor", "arena"}
    return [_as_choice(a) if a.lstrip("+").split(".")[0] in swept else a for a in argv]


def _as_choice(argument: str) -> str:
    key, _, value = argument.partition("=")
    if "." not in key or not _is_override(argument) or not value:
        return argument
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:  # is explained where Hydra reads it
        return argument
    return argument if override.is_sweep_override() else f"{key}=choice({value})"


@contextlib.contextmanager
def _sweep_directory(argv: Sequence[str]) -> Iterator[list[str]]:
    """Add a temporary hydra.sweep.dir to a sweep: Hydra requires one, and genbench's runs do not use it."""
    if not is_sweep(argv) or any(a.startswith("hydra.sweep.dir=") for a in argv):
        yield [*argv]
        return
    with tempfile.TemporaryDirectory(prefix="genbench-sweep-") as scratch:
        yield [*argv, f"hydra.sweep.dir='{scratch}'"]


@contextlib.contextmanager
def _as_command_line(program: str, argv: Sequence[str]) -> Iterator[None]:
    """Context in which Hydra reads `argv` as the command line of `program`, and raises instead of printing."""
    before, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    # flags first: Hydra's parser refuses overrides that stand on both sides of a flag
    sys.argv = [program, *sorted(argv, key=_is_override)]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _overrides(argv: Sequence[str]) -> list[str]:
    """The overrides among the arguments; --config-dir as the equivalent `hydra.searchpath`."""
    overrides = [a for a in argv if _is_override(a)]
    for flag, value in zip(argv, argv[1:], strict=False):
        if flag in ("--config-dir", "-cd"):
            overrides.append(f"hydra.searchpath=[file://{Path(value).resolve()}]")
    return overrides


def _is_override(argument: str) -> bool:
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _task_overrides() -> list[str]:
    """Overrides of the job that Hydra is running now."""
    overrides: list[str] = OmegaConf.to_container(  # type: ignore[assignment]
        HydraConfig.get().overrides.task, resolve=False
    )
    return overrides


def _command(argv: Sequence[str], overrides: Sequence[str], sweep: bool) -> str:
    """The command line that executes this run alone."""
    if not sweep:
        return "genbench train " + shlex.join(argv) if argv else "genbench train"
    flags: list[str] = []
    for flag, value in zip(argv, argv[1:], strict=False):
        if flag in ("--config-dir", "-cd", "--config-name", "-cn"):
            flags += [flag, value]
    return "genbench train " + shlex.join([*flags, *overrides])


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """A composition as plain values, with absolute paths.

    UserMistake for a value that is missing or cannot be resolved.
    """
    try:
        for name, path in list(cfg.paths.items()):
            if path is not None:
                cfg.paths[name] = os.path.abspath(os.path.expanduser(str(path)))
        root = OmegaConf.select(cfg, "dataset.root")
        if root is not None and os.path.exists(os.path.expanduser(str(root))):
            cfg.dataset.root = os.path.abspath(os.path.expanduser(str(root)))
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserMistake(mistakes.explain_value(error)) from error
    assert isinstance(config, dict)
    plain = renamed({str(key): value for key, value in config.items()})
    _with_float_betas(plain)
    if "_target_" not in (plain.get("evaluation") or {}):
        plain["evaluation"] = {}  # none: what a dataset adds to a protocol is no protocol
    return with_versions(plain, versions(plain))


def _with_float_betas(node: Any) -> None:
    """Write Adam's betas as floats, in place: it refuses the [0, 0.99] that people type."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "betas" and isinstance(value, list):
            node[key] = [float(v) if isinstance(v, int) else v for v in value]
        else:
            _with_float_betas(value)


def summary(jobs: Sequence[EndedRun]) -> str:
    """How the runs of a command ended, a line each, and what is left to do."""
    words = {DONE: "finished", MISTAKE: "refused", INTERRUPTED: "interrupted"}
    lines = ["", f"{sum(job.exit_code == DONE for job in jobs)} of {len(jobs)} runs finished"]
    for job in jobs:
        kept = job.directory if job.directory is not None and job.directory.exists() else None
        state = read_status(kept).status if kept else words.get(job.exit_code, "failed")
        settings = " ".join(shown(job.overrides)) + (" (there already)" if job.existed else "")
        lines.append(
            f"  {state:<12} {job.seconds:7.0f} s  {kept.name if kept else '-':<24} {settings}"
        )
    unscored = [
        job.directory.name
        for job in jobs
        if job.exit_code == DONE and job.directory and "evaluation=none" in job.overrides
    ]
    if unscored:
        lines.append(f"not scored: `genbench evaluate {' '.join(unscored)}`, where the weights are")
    return "\n".join(lines)


def shown(overrides: Sequence[str]) -> list[str]:
    """The overrides that tell a run apart: without the record of the search that found them."""
    return [setting for setting in overrides if not setting.startswith("search=")]


def exit_code_of(jobs: Sequence[EndedRun], sweep: bool) -> int:
    """The exit code of a command that ran `jobs`; trials of a search may fail if one did not."""
    if any(job.exit_code == DONE for job in jobs):
        jobs = [job for job in jobs if not job.trial or job.exit_code in (DONE, INTERRUPTED)]
    codes = {job.exit_code for job in jobs}
    if INTERRUPTED in codes or (sweep and any(job.asked_to_stop for job in jobs)):
        return INTERRUPTED
    if len(codes) <= 1:
        return codes.pop() if codes else DONE
    return FAILED
