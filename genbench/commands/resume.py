"""`genbench resume`: continue an interrupted run."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from genbench.commands.arguments import wants_help
from genbench.errors import DONE, MISTAKE, UserMistake
from genbench.launch import resumption
from genbench.launch.resumption import restarted
from genbench.launch.run import execute_worker, is_rank_zero, share_config
from genbench.runs import trust
from genbench.runs.config import write_config
from genbench.runs.directory import find_run
from genbench.runs.selection import parse_selections
from genbench.runs.status import read_status

USAGE = """\
usage: genbench resume RUN [trainer=NAME] [trainer.key=value ...] [--trust]

Continues a run from its last checkpoint as if it had not stopped.
RUN is a run id, a unique prefix of one, a path, or `latest`.

  genbench resume latest
  genbench resume latest trainer=ddp trainer.devices=2
  genbench resume latest trainer.checkpoint_minutes=2 dataset.workers=8

The trainer may change, and where a dataset is and how it is read (dataset.root, workers, cache_gb,
device_resident). The record lists every trainer. Method, budget and seed cannot change: train a new
run for that. With another trainer.precision the run becomes a method of its own in comparisons.
--trust lets a run from elsewhere name code that is not genbench's; it is then remembered."""


def main(argv: Sequence[str], worker: str = "genbench.work train") -> int:
    """Continue an interrupted run from its last checkpoint; returns the exit code.

    `argv` is the run and the settings that change: `trainer=...`, `trainer.key=value`, or how the
    dataset is read. `worker` is the module that trains.
    """
    if wants_help(argv):
        print(USAGE)
        return DONE
    trusted, rest = trust.split_flag(list(argv))
    references, settings = parse_selections(rest)
    overrides = ["=".join(setting) for setting in settings]
    if len(references) != 1:
        raise UserMistake(
            "resume takes one run (an id, a unique prefix, a path, or latest) and settings of the "
            "trainer: genbench resume latest trainer.devices=2"
        )
    directory = find_run(references[0])
    status = read_status(directory).status
    if status == "finished" and restarted():  # a cluster requeued a job that was done
        return DONE
    if is_rank_zero():
        _check_resumable(directory, status)
    before = trust.admitted(directory, trusted)
    config = resumption.with_overrides(before, overrides) if overrides else before
    share_config(directory, config)
    trust.remember(directory)  # the command's own settings too
    command = f"genbench resume {shlex.join(argv)}"
    code, _ = execute_worker(directory, config, command, worker, resume=True)
    if (
        code == MISTAKE and is_rank_zero()
    ):  # the settings were refused: the run keeps its old config
        write_config(directory, before)
    return code


def _check_resumable(directory: Path, status: str) -> None:
    if status == "finished":
        advice = "score it again with `genbench evaluate`, or train a new one"
    elif status == "running" and not restarted():
        advice = "wait for it, or stop it first"
    else:
        return
    raise UserMistake(f"{directory.name} is {status}: {advice}")
