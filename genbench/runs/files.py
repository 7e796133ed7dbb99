"""Atomic writes, and short texts for errors. Imports no torch."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from genbench.errors import UserMistake

UNSENT = "unsent"  # file that marks a wandb folder whose upload may be incomplete


def explain_os_error(error: OSError) -> str:
    """The operating system's message, without errno and path."""
    return (error.strerror or str(error)).lower()


def write_out(path: Path, text: str) -> None:
    """Write the output of a command to the file given by `--out`; UserMistake if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserMistake(
            f"cannot write --out {path}: {explain_os_error(error)}; choose another file"
        ) from None


# --- atomic writes ------------------------------------------------------------------------------
@contextmanager
def atomic_write(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file that the block writes there replaces `path`.

    Readers see the old file or the new one, never a part of it; with `sync` (fsync) also after a power
    cut. If the block raises, `path` stays as it was and the temporary file is removed. The temporary
    name ends in `.partial`; such a file is left behind only if the process is killed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; ValueError for NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def first_line(error: BaseException) -> str:
    """First line of an error's message, or the name of its class if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
