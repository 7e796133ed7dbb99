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
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genbench import dashboard, mistakes
from genbench.errors import DONE, FAILED, INTERRUPTED, MISTAKE, GenbenchError, UserMistake
from genbench.runs import (
    FINAL,
    Status,
    default_outputs,
    explain_os_error,
    find_run,
    new_run_directory,
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


class _StopSweep(BaseException):
    """Ends a sweep after an interruption; no Exception, because Hydra collects those."""


def train(argv: Sequence[str], worker: str = "genbench.train") -> int:
    """Train what `argv` asks for: overrides and Hydra's flags. Returns the exit code.

    `worker` is the module that is given the run directory. Raises GenbenchError.
    """
    jobs: list[Job] = []

    def job(cfg: DictConfig) -> None:
        jobs.append(_job(cfg, argv, worker))
        if jobs[-1].asked or jobs[-1].code == INTERRUPTED:
            raise _StopSweep

    sweep = is_sweep(argv)
    decorate = hydra.main(
        config_path=str(mistakes.config_root()), config_name="train", version_base="1.3"
    )
    try:
        with _sweep_directory(argv) as arguments, _as_command_line("genbench train", arguments):
            decorate(job)()
    except _StopSweep:
        pass
    except Exception as error:
        raise mistakes.explain(error, _overrides(argv), mistakes.config_root()) from error
    if sweep and jobs:
        print(_summary(jobs))
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


def _job(cfg: DictConfig, argv: Sequence[str], worker: str) -> Job:
    """Run one job of Hydra's; a failure is told, not raised, so that a sweep goes on."""
    overrides: list[str] = OmegaConf.to_container(  # type: ignore[assignment]
        HydraConfig.get().overrides.task, resolve=False
    )
    began, directory, asked = time.monotonic(), None, False
    if is_sweep(argv):
        print(f"\ngenbench: {' '.join(overrides)}", file=sys.stderr, flush=True)
    try:
        mistakes.check_values(overrides, HydraConfig.get().job.config_name or "train")
        config = resolve(cfg)
        directory, code, asked = start(config, _command(argv, overrides), worker)
    except GenbenchError as error:
        code = error.exit_code
        print(f"genbench: {error}", file=sys.stderr)
        if os.environ.get("GENBENCH_DEBUG") == "1":
            traceback.print_exc()
    return Job(overrides, directory, code, asked, time.monotonic() - began)


def _command(argv: Sequence[str], overrides: Sequence[str]) -> str:
    """The command line that does this run alone."""
    if not is_sweep(argv):
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
        settings = " ".join(job.overrides)
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


def start(config: dict[str, Any], command: str, worker: str) -> tuple[Path, int, bool]:
    """Make the run directory of a resolved config and see its worker through.

    Returns the directory, the exit code, and whether the worker was asked to stop.
    """
    external = external_launch()
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
    return directory, *_see_through(directory, config, command, worker)


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
    environment = worker_environment(command, _processes(config), external is not None)
    environment.update(_logger_decision(config))
    arguments = [str(directory), *(["--resume"] if resume else [])]
    code, asked = run_worker(worker, arguments, environment)
    if external and external["rank"] != 0:
        return (code if code >= 0 else FAILED), asked
    return settle(directory, code, asked, resume), asked


def _processes(config: Mapping[str, Any]) -> int:
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
    """Continue an interrupted run from its last checkpoint. Returns the exit code."""
    if len(argv) != 1:
        raise UserMistake("resume takes one run: an id, a prefix of one, a path, or latest")
    directory = find_run(argv[0])
    status = read_status(directory).status
    if status in ("finished", "running"):
        advice = {
            "finished": "score it again with `genbench evaluate`, or train a new one",
            "running": "wait for it, or stop it first",
        }[status]
        raise UserMistake(f"{directory.name} is {status}: {advice}")
    command = f"genbench resume {shlex.quote(argv[0])}"
    code, _ = _see_through(directory, read_config(directory), command, worker, resume=True)
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
    code, asked = run_worker(worker, arguments, environment)
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
