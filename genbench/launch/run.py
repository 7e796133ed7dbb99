"""One run: its directory, its worker, and the end of its record. Imports no torch.

Under torchrun or srun every rank comes through here: rank 0 makes the directory (its name must be known
to all: `run_id=NAME`, or the step's number under srun), the others wait for it."""

import contextlib
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genbench.errors import DONE, FAILED, INTERRUPTED, MISTAKE, GenbenchError, UserMistake
from genbench.launch import wandb_access
from genbench.launch.resumption import restarted, taken_up
from genbench.launch.worker import external_launch, run_worker, worker_environment
from genbench.runs.config import read_config, write_config
from genbench.runs.directory import new_run_directory
from genbench.runs.files import explain_os_error
from genbench.runs.status import FINAL, Status, read_status, write_status

WAIT_SECONDS = 120.0  # for rank 0 to make the run directory


@dataclass(frozen=True)
class Plan:
    """A run that is about to start, or (`found`) that is there already."""

    overrides: Sequence[str]
    config: Mapping[str, Any]
    command: str
    directory: Path | None = None  # of an earlier beginning
    found: bool = False  # nothing is left to do


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
    return directory, *see_worker_through(directory, plan.config, plan.command, worker, resume)


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


def see_worker_through(
    directory: Path, config: Mapping[str, Any], command: str, worker: str, resume: bool = False
) -> tuple[int, bool]:
    """Run the worker of a directory to its end: (exit code, was it asked to stop?)."""
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
    return {"GENBENCH_LOGGER": wandb_access.decide(chosen)} if "wandb" in chosen else {}


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


def run_verb(arguments: Sequence[str], verb: str, argv: Sequence[str], worker: str) -> int:
    """Run the worker of a verb on a run that exists; returns the exit code."""
    environment = worker_environment(f"genbench {verb} {shlex.join(argv)}")
    code, asked = run_worker(worker, arguments, environment, checkpoint=False)
    if code < 0 and not asked:
        raise GenbenchError(_cause(code))
    return INTERRUPTED if asked and code != DONE else code
