"""`genbench resume`: continue an interrupted run. Imports no torch."""

import shlex
from collections.abc import Sequence

from genbench.errors import DONE, MISTAKE, UserMistake
from genbench.launch import resumption
from genbench.launch.resumption import restarted
from genbench.launch.run import agree, is_first, see_worker_through
from genbench.runs.config import read_config, write_config
from genbench.runs.directory import find_run
from genbench.runs.selection import parse_selections
from genbench.runs.status import read_status


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
    code, _ = see_worker_through(directory, config, command, worker, resume=True)
    if code == MISTAKE and is_first():  # it stays resumable as it was
        write_config(directory, before)
    return code
