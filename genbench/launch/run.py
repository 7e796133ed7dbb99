"""One run: its directory, its worker process and its final status.

Under torchrun or srun this code runs once in every rank: rank 0 makes the directory, the others wait
for it. So all ranks must know its name: `run_id=NAME`, or the step id under srun.
"""

import contextlib
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genbench.errors import (
    DONE,
    FAILED,
    INTERRUPTED,
    MISTAKE,
    GenbenchError,
    Notice,
    UserMistake,
)
from genbench.launch import wandb_access
from genbench.launch.host import physical_cores, visible_gpus
from genbench.launch.resumption import restarted, restarted_config
from genbench.launch.worker import external_launch, run_worker, worker_environment
from genbench.runs import ended_ranks, trust
from genbench.runs.config import read_config, write_config
from genbench.runs.directory import new_run_directory
from genbench.runs.files import explain_os_error
from genbench.runs.status import FINAL, read_status, read_written_status, write_status
from genbench.runs.stops import explain_exit

WAIT_SECONDS = 120.0  # for rank 0 to make the run directory


@dataclass(frozen=True)
class RunPlan:
    """A run to start or to resume, or, if `complete`, one that an earlier command has done."""

    overrides: Sequence[str]
    config: Mapping[str, Any]
    command: str
    earlier: Path | None = None  # its directory, if an earlier command started it
    complete: bool = False


# --- one run ------------------------------------------------------------------------------------
def execute(plan: RunPlan, worker: str) -> tuple[Path, int, bool]:
    """Make the run directory of a plan and run its worker to the end.

    Returns the directory, the exit code, and whether the worker was asked to stop.
    """
    if plan.complete:
        assert plan.earlier is not None
        return plan.earlier, earlier_exit_code(plan.earlier), False
    directory = make_directory(plan)
    resume = plan.earlier is not None
    return directory, *execute_worker(directory, plan.config, plan.command, worker, resume)


def restarted_plan(plan: RunPlan) -> RunPlan:
    """The plan; in a job that SLURM or torchrun has restarted, changed to resume the job's own run."""
    external = external_launch() or {"run_id": None}
    run_id = plan.config["run_id"] or external["run_id"]
    directory = Path(plan.config["paths"]["outputs"]) / str(run_id)
    if not run_id or not restarted() or not (directory / "config.yaml").exists():
        return plan
    config = restarted_config(directory, plan.config)
    complete = read_status(directory).status in ("finished", "diverged")
    if not complete:
        trust.check(directory)
        share_config(directory, config)
        trust.remember(directory)
    return replace(plan, config=config, earlier=directory, complete=complete)


def is_rank_zero() -> bool:
    """Whether this process writes the record: rank 0, or the only process."""
    external = external_launch()
    return external is None or external["rank"] == 0


def share_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Write the changed config of a resumed run in rank 0; the other ranks wait for it.

    GenbenchError after WAIT_SECONDS."""
    end = time.monotonic() + WAIT_SECONDS
    while read_config(directory) != config:
        if is_rank_zero():
            write_config(directory, config)
        elif time.monotonic() > end:
            raise GenbenchError(f"rank 0 did not write {directory / 'config.yaml'}")
        else:
            time.sleep(0.2)


def earlier_exit_code(directory: Path) -> int:
    """Exit code for a run that an earlier command has done or is still running."""
    return DONE if read_status(directory).status in ("finished", "running") else FAILED


def make_directory(plan: RunPlan) -> Path:
    """Make the run directory and write its config; of a resumed run return the directory.

    UserMistake if it cannot be written, GenbenchError if rank 0 does not make it.
    """
    if plan.earlier is not None:
        return plan.earlier
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
    trust.remember(directory)
    return directory


def _shared_directory(config: Mapping[str, Any], external: Mapping[str, Any]) -> Path:
    """The run directory that all ranks of torchrun or srun share; rank 0 makes it."""
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


def execute_worker(
    directory: Path, config: Mapping[str, Any], command: str, worker: str, resume: bool = False
) -> tuple[int, bool]:
    """Run the worker on a run directory until it exits: (exit code, whether it was asked to stop)."""
    external = external_launch()
    if not external:
        warn_of_cores(config)
    environment = run_environment(config, command, external=external is not None)
    code, asked = run_worker(worker, run_arguments(directory, resume), environment)
    if external and external["name"] == "srun" and code < 0 and not asked:  # others may wait for it
        ended_ranks.leave_word(directory, external["rank"], explain_exit("its worker", code))
    if external and external["rank"] != 0:
        return (code if code >= 0 else FAILED), asked
    return finish_status(directory, code, asked, resume), asked


def run_environment(
    config: Mapping[str, Any], command: str, runs: int = 1, external: bool = False
) -> dict[str, str]:
    """Environment variables of the worker of a run; `runs` runs share this machine's cores.

    Whether it logs to wandb is decided here, before it starts.
    """
    environment = worker_environment(command, runs * processes(config), external)
    return environment | _logger_decision(config)


def run_arguments(directory: Path, resume: bool) -> list[str]:
    """Command line arguments of the worker that trains a run."""
    return [str(directory), *(["--resume"] if resume else [])]


def processes(config: Mapping[str, Any]) -> int:
    """Processes of one run on this machine: one per device; 1 if `devices` is not yet a number."""
    trainer = config.get("trainer", {})
    devices = trainer.get("devices", 1)
    if devices == -1 and trainer.get("accelerator") != "cpu":
        return max(1, len(visible_gpus()))
    return devices if isinstance(devices, int) and devices > 0 else 1


def warn_of_cores(config: Mapping[str, Any]) -> None:
    """Say so if a run has more CPU processes than there are cores: they take turns."""
    count, cores = processes(config), physical_cores()
    accelerator = config.get("trainer", {}).get("accelerator")
    if count > cores and (accelerator == "cpu" or not visible_gpus()):
        warnings.warn(
            f"trainer.devices={count} starts {count} processes on {cores} "
            f"core{'' if cores == 1 else 's'}: that is slower than trainer.devices={cores}",
            Notice,
            stacklevel=2,
        )


def _logger_decision(config: Mapping[str, Any]) -> dict[str, str]:
    """GENBENCH_LOGGER with the result of `wandb_access.decide_mode`; empty without a wandb logger."""
    chosen = config.get("logger") or {}
    return {"GENBENCH_LOGGER": wandb_access.decide_mode(chosen)} if "wandb" in chosen else {}


def finish_status(directory: Path, code: int, asked: bool, resume: bool) -> int:
    """Write the final status of a run whose worker ended with `code`, if it wrote none; the exit code.

    The directory of a new run that was refused before its first checkpoint is deleted. `asked`: the
    worker was asked to stop.
    """
    if code == MISTAKE and not resume and not any((directory / "checkpoints").glob("*")):
        shutil.rmtree(directory, ignore_errors=True)
        return MISTAKE
    status = read_written_status(
        directory
    )  # as written: a stale heartbeat means nothing, the worker has just ended
    if status.status not in FINAL:
        final, reason = _final_status(code, asked)
        status = replace(status, status=final, reason=reason)
        if status.status == "failed":
            print(f"genbench: {directory.name}: {status.reason}", file=sys.stderr)
        with contextlib.suppress(
            OSError
        ):  # the disk is full: readers see the missing heartbeat instead
            write_status(directory, status)
    if code < 0 and status.status == "finished":  # it was asked to stop after it had finished
        return DONE
    if asked and code != DONE:
        return INTERRUPTED
    return code if code in (DONE, MISTAKE, INTERRUPTED) else FAILED


def _final_status(code: int, asked: bool) -> tuple[str, str]:
    if asked:
        return "interrupted", "stopped outside training; `genbench resume` continues it"
    if code == MISTAKE:
        return "interrupted", "it could not be resumed with these settings"
    return "failed", explain_exit("the worker", code)


def run_verb(arguments: Sequence[str], verb: str, argv: Sequence[str], worker: str) -> int:
    """Run the worker of `genbench <verb>` on an existing run; returns the exit code."""
    environment = worker_environment(f"genbench {verb} {shlex.join(argv)}")
    code, asked = run_worker(worker, arguments, environment, checkpoint=False)
    if code < 0 and not asked:
        raise GenbenchError(explain_exit("the worker", code))
    return INTERRUPTED if asked and code != DONE else code
