"""From a command line to a run: Hydra composes, a directory is made, one worker is started.

Nothing here imports torch, so a typo is answered at once. Under torchrun or srun the launch is
theirs: every rank comes through here, rank 0 makes the directory (its name must be known to all:
`run_id=NAME`, or the step's number under srun), the others wait for it.
"""

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genbench import dashboard, mistakes, resumption
from genbench.backlog import Backlog
from genbench.errors import DONE, FAILED, INTERRUPTED, MISTAKE, GenbenchError, UserMistake
from genbench.resumption import restarted, taken_up
from genbench.runs import (
    FINAL,
    Status,
    default_outputs,
    explain_os_error,
    find_run,
    new_run_directory,
    parse_selections,
    read_config,
    read_status,
    write_config,
    write_status,
)
from genbench.worker import external_launch, run_worker, worker_environment

WAIT_SECONDS = 120.0  # for rank 0 to make the run directory


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


@dataclass(frozen=True)
class Plan:
    """A run that is about to start, or (`found`) that is there already."""

    overrides: Sequence[str]
    config: Mapping[str, Any]
    command: str
    directory: Path | None = None  # of an earlier beginning
    found: bool = False  # nothing is left to do


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
        mistakes.check_values(overrides, HydraConfig.get().job.config_name or "train", self._memory)
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
        config_path=str(mistakes.config_root()), config_name="train", version_base="1.3"
    )
    try:
        with _sweep_directory(argv) as arguments, _as_command_line("genbench train", arguments):
            decorate(task)()
    except StopSweep:
        pass
    except Exception as error:
        raise mistakes.explain(error, _overrides(argv), mistakes.config_root()) from error
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


# --- one run ------------------------------------------------------------------------------------


def see_through(plan: Plan, worker: str) -> tuple[Path, int, bool]:
    """Make the run directory of a plan and see its worker to the end.

    Returns the directory, the exit code, and whether the worker was asked to stop.
    """
    if plan.found:
        assert plan.directory is not None
        return plan.directory, outcome(plan.directory), False
    directory = make_directory(plan)
    resume = plan.directory is not None
    return directory, *_see_through(directory, plan.config, plan.command, worker, resume)


def begun_before(plan: Plan) -> Plan:
    """The plan, with the run that it began before a cluster or torchrun started the job again."""
    external = external_launch() or {"run_id": None}
    run_id = plan.config["run_id"] or external["run_id"]
    directory = Path(plan.config["paths"]["outputs"]) / str(run_id)
    if not run_id or not restarted() or not (directory / "config.yaml").exists():
        return plan
    config = taken_up(directory, plan.config)
    over = read_status(directory).status in ("finished", "diverged")
    if not over:
        agree(directory, config)
    return replace(plan, config=config, directory=directory, found=over)


def is_first() -> bool:
    """Tell whether this process is the one that writes the record."""
    external = external_launch()
    return external is None or external["rank"] == 0


def agree(directory: Path, config: Mapping[str, Any]) -> None:
    """Give a run that goes on its changed config; the later ranks wait for it."""
    end = time.monotonic() + WAIT_SECONDS
    while read_config(directory) != config:
        if is_first():
            write_config(directory, config)
        elif time.monotonic() > end:
            raise GenbenchError(f"rank 0 did not write {directory / 'config.yaml'}")
        else:
            time.sleep(0.2)


def outcome(directory: Path) -> int:
    """Exit code of a run that is there already."""
    return DONE if read_status(directory).status in ("finished", "running") else FAILED


def make_directory(plan: Plan) -> Path:
    """Make the run directory, with its config, or take the one of an earlier beginning."""
    if plan.directory is not None:
        return plan.directory
    config, external = plan.config, external_launch()
    if external:
        directory = _shared_directory(config, external)
    else:
        directory = new_run_directory(Path(config["paths"]["outputs"]), config["run_id"])
    if not external or external["rank"] == 0:
        try:
            write_config(directory, {**config, "run_id": directory.name})
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise UserMistake(
                f"cannot write to {directory.parent}: {explain_os_error(error)}; "
                "make room, or choose another place with paths.outputs=..."
            ) from None
    return directory


def _shared_directory(config: Mapping[str, Any], external: Mapping[str, Any]) -> Path:
    """The directory that all ranks of another launcher write to; made by rank 0."""
    run_id: str | None = config["run_id"] or external["run_id"]
    if run_id is None:
        raise UserMistake(
            f"under {external['name']} all processes must agree on the run directory: give run_id=NAME"
        )
    outputs = Path(config["paths"]["outputs"])
    if external["rank"] == 0:
        return new_run_directory(outputs, run_id)
    directory, end = outputs / run_id, time.monotonic() + WAIT_SECONDS
    while not (directory / "config.yaml").exists():
        if time.monotonic() > end:
            raise GenbenchError(f"rank 0 did not make {directory} within {WAIT_SECONDS:.0f} s")
        time.sleep(0.2)
    return directory


def _see_through(
    directory: Path, config: Mapping[str, Any], command: str, worker: str, resume: bool = False
) -> tuple[int, bool]:
    external = external_launch()
    environment = run_environment(config, command, external=external is not None)
    code, asked = run_worker(worker, run_arguments(directory, resume), environment)
    if external and external["rank"] != 0:
        return (code if code >= 0 else FAILED), asked
    return settle(directory, code, asked, resume), asked


def run_environment(
    config: Mapping[str, Any], command: str, runs: int = 1, external: bool = False
) -> dict[str, str]:
    """Environment of a run that shares this machine's cores with others, `runs` in all."""
    environment = worker_environment(command, runs * processes(config), external)
    return environment | _logger_decision(config)


def run_arguments(directory: Path, resume: bool) -> list[str]:
    """What the worker of a run is told."""
    return [str(directory), *(["--resume"] if resume else [])]


def processes(config: Mapping[str, Any]) -> int:
    """Processes that share this machine's cores: one per device, as far as that is known here."""
    devices = config.get("trainer", {}).get("devices", 1)
    return devices if isinstance(devices, int) and devices > 0 else 1


def _logger_decision(config: Mapping[str, Any]) -> dict[str, str]:
    """Decide here, before the run and outside it, whether wandb is online, offline or left out."""
    chosen = config.get("logger") or {}
    return {"GENBENCH_LOGGER": dashboard.decide(chosen)} if "wandb" in chosen else {}


def settle(directory: Path, code: int, asked: bool, resume: bool) -> int:
    """Finish the record of a run whose worker ended with `code`; returns the exit code.

    A new run that was refused before anything was recorded leaves no directory. One whose worker
    died without a last word gets it here: `asked` says that it had been told to stop.
    """
    if code == MISTAKE and not resume and not any((directory / "checkpoints").glob("*")):
        shutil.rmtree(directory, ignore_errors=True)
        return MISTAKE
    status = _written_status(directory)
    if status.status not in FINAL:
        word, reason = _last_word(code, asked)
        status = replace(status, status=word, reason=reason)
        if status.status == "failed":
            print(f"genbench: {directory.name}: {status.reason}", file=sys.stderr)
        with contextlib.suppress(OSError):  # a full disk: the missing heartbeat says it too
            write_status(directory, status)
    if code < 0 and status.status == "finished":  # it was told to stop after its last word
        return DONE
    if asked and code != DONE:
        return INTERRUPTED
    return code if code in (DONE, MISTAKE, INTERRUPTED) else FAILED


def _last_word(code: int, asked: bool) -> tuple[str, str]:
    if asked:
        return "interrupted", "stopped outside training; `genbench resume` goes on from there"
    if code == MISTAKE:
        return "interrupted", "it could not be resumed as it was asked for"
    return "failed", _cause(code)


def _written_status(directory: Path) -> Status:
    """What the worker wrote last; its heartbeat cannot be stale yet, for it has just gone."""
    status = read_status(directory)
    silent = status.status == "interrupted" and status.reason == "the run stopped without a word"
    return replace(status, status="running") if silent else status


def _cause(code: int) -> str:
    if code < 0:
        hint = " (out of memory?)" if code == -9 else ""
        return f"the worker was killed by signal {-code}{hint}"
    return f"the worker ended with code {code} and without a last word"


# --- verbs on runs that exist -------------------------------------------------------------------


def resume(argv: Sequence[str], worker: str = "genbench.train") -> int:
    """Continue an interrupted run from its last checkpoint. Returns the exit code.

    `argv` is the run, and `trainer=...` or `trainer.key=value` where it is to go on otherwise.
    """
    references, settings = parse_selections(argv)
    overrides = ["=".join(setting) for setting in settings]
    if len(references) != 1:
        raise UserMistake(
            "resume takes one run, an id, a prefix of one, a path, or latest; and settings of the "
            "trainer: genbench resume latest trainer.devices=2"
        )
    directory = find_run(references[0])
    status = read_status(directory).status
    if status == "finished" and restarted():
        return DONE
    if is_first() and (status == "finished" or (status == "running" and not restarted())):
        advice = {
            "finished": "score it again with `genbench evaluate`, or train a new one",
            "running": "wait for it, or stop it first",
        }[status]
        raise UserMistake(f"{directory.name} is {status}: {advice}")
    before = read_config(directory)
    config = resumption.changed(before, overrides) if overrides else before
    agree(directory, config)
    command = f"genbench resume {shlex.join(argv)}"
    code, _ = _see_through(directory, config, command, worker, resume=True)
    if code == MISTAKE and is_first():  # it stays resumable as it was
        write_config(directory, before)
    return code


def sample(argv: Sequence[str], worker: str = "genbench.sample") -> int:
    """Draw images from a run: RUN and the arguments of `genbench.sample`. Returns the exit code."""
    if not argv or argv[0].startswith("-"):
        raise UserMistake(
            "sample needs a run first: genbench sample latest --num 64 --out grid.png"
        )
    directory = find_run(argv[0])
    return _run([str(directory), *argv[1:]], "sample", argv, worker)


def _run(arguments: Sequence[str], verb: str, argv: Sequence[str], worker: str) -> int:
    environment = worker_environment(f"genbench {verb} {shlex.join(argv)}")
    code, asked = run_worker(worker, arguments, environment, checkpoint=False)
    if code < 0 and not asked:
        raise GenbenchError(_cause(code))
    return INTERRUPTED if asked and code != DONE else code


def evaluate(argv: Sequence[str], worker: str = "genbench.evaluate") -> int:
    """Score runs again, under the protocol that `key=value` arguments describe: worst exit code."""
    overrides = [a for a in argv if "=" in a and not Path(a).exists()]
    references = [a for a in argv if a not in overrides]
    if not references or any(r.startswith("-") for r in references):
        raise UserMistake(
            "evaluate needs a run: genbench evaluate latest evaluation.num_samples=5000"
        )
    outputs = [o.partition("=")[2] for o in overrides if o.startswith("paths.outputs=")]
    directories = [
        find_run(r, Path(outputs[-1]) if outputs else default_outputs()) for r in references
    ]
    codes = []
    for directory in directories:
        content = protocol(read_config(directory), overrides)
        with tempfile.TemporaryDirectory(prefix="genbench-evaluate-") as scratch:
            path = Path(scratch) / "config.yaml"
            path.write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
            codes.append(_run([str(directory), str(path)], "evaluate", argv, worker))
        if codes[-1] == INTERRUPTED:
            return INTERRUPTED
    return max(codes)


def protocol(run: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Compose `evaluation` and `extractor` for a run: its own, changed by `overrides`.

    A group that is chosen anew (`evaluation=full`, `extractor=...`) comes with its own values.
    """
    for override in overrides:
        if override.split("=")[0].split(".")[0] not in ("evaluation", "extractor", "paths"):
            raise UserMistake(
                f"{override} belongs to training: evaluate takes evaluation, extractor and paths"
            )
    chosen = {override.split("=")[0] for override in overrides}
    choices = [f"{k}={v}" for k, v in run["choices"].items() if v is not None and k not in chosen]
    try:
        with mistakes.composing(mistakes.config_root()):
            cfg = compose("train", overrides=[*choices, *overrides])
            mistakes.check_values([*choices, *overrides])
    except Exception as error:
        raise mistakes.explain(error, overrides, mistakes.config_root()) from error
    OmegaConf.set_struct(cfg, False)
    for name, block in run.items():
        if name not in ("evaluation", "extractor", "paths"):
            cfg[name] = block
    for group in ("evaluation", "extractor"):
        if group not in chosen and group in run:
            cfg[group] = _kept(cfg, group, run[group], chosen)
    config = resolve(cfg)
    return {name: config[name] for name in ("evaluation", "extractor")}


def _kept(cfg: DictConfig, group: str, block: Mapping[str, Any], chosen: set[str]) -> DictConfig:
    """A run's own block with the changed values, and with its ties to extractor and paths."""
    kept = OmegaConf.create(dict(block))
    raw = OmegaConf.to_container(cfg[group], resolve=False)
    assert isinstance(raw, dict)
    for name, value in raw.items():
        if isinstance(value, str) and value.startswith(("${extractor", "${paths")):
            kept[name] = value
    for key in chosen:
        if key.startswith(f"{group}."):
            value = OmegaConf.select(cfg, key)
            OmegaConf.update(kept, key.removeprefix(f"{group}."), value, force_add=True)
    return kept
