"""Run directories: where they are, what their state is. Imports no torch: scripts ask often."""

import difflib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from genbench.budget import parse_images
from genbench.errors import GenbenchError, UserMistake

FINAL = ("finished", "interrupted", "diverged", "failed")
# Ctrl-C as a parent passes it on: of SIGINT Python makes a traceback until its code has taken it over
CTRL_C: signal.Signals = getattr(signal, "SIGUSR2", signal.SIGTERM)
# Ctrl-C; a cluster's or a user's request; what `sbatch --signal=USR1@60` sends before the time is over
STOPS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
STALE_SECONDS = 60.0  # six heartbeats
PRUNED = "stopped by the search: worse than half of the trials at this point"
_ABSENT = object()
S = TypeVar("S")
T = TypeVar("T")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def stop_name(number: int) -> str:
    """What a signal of `STOPS` is called in a sentence."""
    by_hand = number in (signal.SIGINT, CTRL_C)
    return "Ctrl-C" if by_hand else signal.Signals(number).name


@dataclass(frozen=True)
class Status:
    """How a run is doing; times in seconds since 1970, `images` of `total_images` shown."""

    status: str
    reason: str | None = None
    heartbeat: float = 0.0
    pid: int | None = None
    host: str | None = None
    started: float | None = None
    images: int = 0
    total_images: int = 0
    images_per_second: float | None = None


# --- making one ---------------------------------------------------------------------------------


def default_outputs() -> Path:
    """Where runs are kept when nobody says otherwise."""
    return Path(os.environ.get("GENBENCH_OUTPUTS", "outputs")).expanduser()


def new_run_directory(outputs: Path, run_id: str | None = None) -> Path:
    """Make `outputs/run_id`, which nothing else may have made; without an id, time and chance.

    Raises UserMistake if the directory exists or cannot be made. Made-up ids sort by time (UTC).
    """
    if run_id is None:
        return _made_up_directory(outputs)
    name = str(run_id)
    if name != Path(name).name or name.startswith((".", "-")) or name in ("", "latest"):
        raise UserMistake(
            f"run_id={name} is not a name for a directory: use letters, digits, '-', '_' and '.'"
        )
    try:
        return _made(outputs / name)
    except FileExistsError:
        raise UserMistake(_exists(outputs, outputs / name)) from None


def _made_up_directory(outputs: Path) -> Path:
    """Try ids until one is new: of a thousand runs in a second, some share theirs."""
    while True:
        made_up = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)
        try:
            return _made(outputs / made_up)
        except FileExistsError:
            if not outputs.is_dir():
                raise UserMistake(_exists(outputs, outputs / made_up)) from None


def _made(directory: Path) -> Path:
    """Make a directory that is new; raises FileExistsError, and UserMistake for all else."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        raise UserMistake(
            f"cannot make the run directory {directory}: {explain_os_error(error)}; "
            "choose another place with paths.outputs=..."
        ) from None
    return directory


def _exists(outputs: Path, directory: Path) -> str:
    if not outputs.is_dir():
        return f"paths.outputs={outputs} is a file, not a directory: choose another place"
    return (
        f"the run directory {directory} exists, and no run is ever overwritten: "
        f"choose another run_id, or continue it with `genbench resume {directory.name}`"
    )


def explain_os_error(error: OSError) -> str:
    """Say what the system said, without errno and path."""
    return (error.strerror or str(error)).lower()


# --- finding one --------------------------------------------------------------------------------


def write_out(path: Path, text: str) -> None:
    """Write what a command was asked to write to `--out`; UserMistake where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserMistake(
            f"cannot write --out {path}: {explain_os_error(error)}; choose another file"
        ) from None


def iter_runs(outputs: Path) -> Iterator[Path]:
    """Every directory in `outputs` that holds a run, sorted by name."""
    for name in run_names(outputs):
        if os.path.exists(os.path.join(outputs, name, "config.yaml")):
            yield outputs / name


def run_names(outputs: Path) -> list[str]:
    """Names of the directories in `outputs` that may be runs, sorted; none where it is missing."""
    try:
        with os.scandir(outputs) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def find_run(reference: str, outputs: Path | None = None) -> Path:
    """Find the run that an id, a unique prefix of one, a path or `latest` means.

    Raises UserMistake with the nearest ids if there is none, or more than one.
    """
    outputs = default_outputs() if outputs is None else outputs
    if (Path(reference) / "config.yaml").exists():
        return Path(reference)
    runs = list(iter_runs(outputs))
    if not runs:
        raise UserMistake(f"there are no runs in {outputs}: start one with `genbench train`")
    if reference == "latest":
        return max(runs, key=lambda run: ((run / "config.yaml").stat().st_mtime, run.name))
    matches = [run for run in runs if run.name.startswith(reference)] if reference else []
    exact = [run for run in matches if run.name == reference]
    if exact or len(matches) == 1:
        return (exact or matches)[0]
    names = [run.name for run in runs]
    if matches:
        few = ", ".join(run.name for run in matches[:5]) + (", ..." if len(matches) > 5 else "")
        raise UserMistake(f"{reference} begins {len(matches)} runs: {few}; give more of the id")
    near = difflib.get_close_matches(reference, names, n=3, cutoff=0.5) or names[-3:]
    raise UserMistake(f"there is no run {reference} in {outputs}; near are {', '.join(near)}")


def parse_selections(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Part references to runs from selections like `model=gan`, as (key, values)."""
    references, selections = [], []
    for argument in arguments:
        key, equals, wanted = argument.partition("=")
        if equals and not Path(argument).exists():
            selections.append((key, wanted))
        else:
            references.append(argument)
    return references, selections


def unless_damaged(read: Callable[[S], T], run: S) -> T | None:
    """`read(run)`, or None where a file of the run is damaged, which is said on stderr.

    For what looks at many runs: one damaged file must not hide the others.
    """
    try:
        return read(run)
    except GenbenchError as error:
        print(f"genbench: left out: {error}", file=sys.stderr)
        return None


def fits(config: Mapping[str, Any], key: str, wanted: str) -> bool:
    """Does a config have one of the values of the comma list `wanted`?

    `key` is one of `choices` or a dotted path. Numbers are compared as numbers.
    """
    value = (config.get("choices") or {}).get(key, _ABSENT)
    if value is _ABSENT:
        value = _select(config, key)
    if value is _ABSENT:  # a VAE's beta selects VAEs
        return False
    values = value if isinstance(value, list) else [value]
    return any(_equal(key, v, text) for v in values for text in wanted.split(","))


def _equal(key: str, value: Any, text: str) -> bool:
    """Does a setting have the value that was typed? A number may be typed in any way."""
    read = parse_images if key == "budget.images" else float
    if key == "budget.images" or (isinstance(value, int | float) and not isinstance(value, bool)):
        with suppress(ValueError, UserMistake):
            return bool(read(text) == read(value))
    return _plain(value) == text


def _select(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _ABSENT
        node = node[part]
    return node


def _plain(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


# --- reading and writing one --------------------------------------------------------------------


def read_config(run: Path) -> dict[str, Any]:
    """Read the resolved config of a run as plain types."""
    try:
        config = yaml.load((run / "config.yaml").read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError:
        raise UserMistake(f"{run} is not a run: it has no config.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GenbenchError(f"{run / 'config.yaml'} cannot be read: {_first_line(error)}") from None
    if not isinstance(config, dict):
        raise GenbenchError(f"{run / 'config.yaml'} cannot be read: it is not a mapping")
    return config


def write_config(run: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved config of a run."""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    _replace(run / "config.yaml", text)


def read_status(run: Path) -> Status:
    """Say how a run is doing; `running` that shows no sign of life reads as `interrupted`."""
    return as_of_now(run, read_written_status(run))


def read_written_status(run: Path) -> Status:
    """Read the last word of a run, which may be `running` long after it died."""
    path = run / "status.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Status)}
        return Status(**{key: value for key, value in content.items() if key in known})
    except FileNotFoundError:
        return Status("running", heartbeat=_modified(run / "config.yaml"))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return Status("failed", f"status.json cannot be read: {_first_line(error)}")


def as_of_now(run: Path, status: Status) -> Status:
    """What a written status means now: `running` without a sign of life is `interrupted`."""
    if status.status != "running" or _shows_life(run, status):
        return status
    return replace(status, status="interrupted", reason="the run stopped without a word")


def _shows_life(run: Path, status: Status) -> bool:
    if time.time() - status.heartbeat <= STALE_SECONDS:
        return True
    return status.host == socket.gethostname() and _is_worker(status.pid, run)


def _is_worker(pid: int | None, run: Path) -> bool:
    """Is this process still the run's worker, and not a later one that was given its number?"""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        return run.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()  # where /proc is not, the number must do


def write_status(run: Path, status: Status) -> None:
    """Write `status.json`, whole or not at all."""
    write_json(run / "status.json", asdict(status))


def write_json(path: Path, content: Any) -> None:
    """Write JSON that is there whole or not at all, also after a power cut; NaN is refused."""
    _replace(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
