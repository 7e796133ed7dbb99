"""Commands in processes of their own: `python -m genbench.library.process FILE ARGUMENTS` trains.

A process apart, as from the shell: Hydra's state, the signals and the memory of a notebook's process stay as
they are. It writes to FILE which runs there were.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from genbench.errors import (
    DONE,
    INTERRUPTED,
    MISTAKE,
    GenbenchError,
    Interrupted,
    UserMistake,
    notices_to,
)

PREFIX = "genbench: "  # of the lines that say what went wrong
INSTALLED = ("site-packages", "dist-packages")


def train_command(arguments: Sequence[str], progress: bool) -> tuple[bool, list[Path]]:
    """Train; whether it was a sweep, and the directories of the runs that are done. Raises GenbenchError."""
    with tempfile.TemporaryDirectory(prefix="genbench-library-") as folder:
        told = Path(folder) / "ended.json"
        command = [sys.executable, "-m", "genbench.library.process", str(told), *arguments]
        run_command(command, progress)
        ended = json.loads(told.read_text(encoding="utf-8"))
    directories = [Path(path) for path in ended["directories"]]
    if not directories and not ended["sweep"]:
        raise UserMistake(f"nothing was trained by {' '.join(arguments)}: it only prints")
    return bool(ended["sweep"]), directories


def run_command(command: Sequence[str], progress: bool) -> None:
    """Run a command to its end, its lines printed here; GenbenchError with its last complaint if it failed.

    Ctrl-C here is passed on, and its end is waited for.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_environment(),
        start_new_session=True,  # Ctrl-C in a terminal reaches this process alone
    )
    complaint = ""
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    with process:
        while True:
            try:
                for line in lines:
                    complaint = line if line.startswith(PREFIX) else complaint
                    if progress:
                        print(line, end="", flush=True)
                break
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
    _raise(process.returncode, complaint.removeprefix(PREFIX).strip())


def _raise(code: int, complaint: str) -> None:
    if code == DONE:
        return
    if code == INTERRUPTED:
        raise Interrupted(complaint or "stopped: `genbench resume latest` goes on from there")
    kind = UserMistake if code == MISTAKE else GenbenchError
    raise kind(complaint or f"the command ended with code {code} and without a message")


def _environment() -> Mapping[str, str]:
    """This process's; genbench of a checkout is found by it too."""
    root = Path(__file__).resolve().parents[2]
    if root.name in INSTALLED:
        return os.environ
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{known}" if known else str(root)}


def main(argv: Sequence[str]) -> int:
    """Train what the arguments after the first ask for, and write to the first one which runs are done."""
    from genbench.launch import task

    told, arguments = Path(argv[0]), list(argv[1:])
    with notices_to(lambda notice: print(f"{PREFIX}{notice}", file=sys.stderr)):
        try:
            jobs = task.ended_runs(arguments)
        except GenbenchError as error:
            print(f"{PREFIX}{error}", file=sys.stderr)
            return error.exit_code
    done = [job.directory for job in jobs if job.exit_code == DONE and job.directory is not None]
    sweep = task.is_sweep(arguments)
    told.write_text(json.dumps({"sweep": sweep, "directories": [str(d.resolve()) for d in done]}))
    return task.exit_code_of(jobs, sweep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
