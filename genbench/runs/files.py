"""Files that are there whole or not at all. Imports no torch."""

import json
import os
from pathlib import Path
from typing import Any

from genbench.errors import UserMistake

UNSENT = "unsent"  # our mark in the folder of an online run whose upload was not seen to end


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


def write_json(path: Path, content: Any) -> None:
    """Write JSON that is there whole or not at all, also after a power cut; NaN is refused."""
    replace_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a text file that is there whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def first_line(error: BaseException) -> str:
    """First line of an error's message, or the name of its class if it has none."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
