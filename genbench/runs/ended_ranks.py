"""What ranks that failed have left in the run's folder, for those that wait for them. Imports no torch."""

from contextlib import suppress
from pathlib import Path

FOLDER = "ranks"


def leave_word(directory: Path, rank: int | str, sentence: str) -> None:
    """Write why a rank failed to `ranks/<rank>.txt`, if the disk can still be written."""
    path = directory / FOLDER / f"{rank}.txt"
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        path.write_text(sentence, encoding="utf-8")


def words(directory: Path) -> str:
    """All of them in a line; empty if there are none."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in _files(directory)}
    return "; ".join(f"rank {rank}: {word}" for rank, word in sorted(found.items()))


def stamps(directory: Path) -> set[tuple[str, int]]:
    """Which there are and when each was written, to tell those of an earlier attempt."""
    found = set()
    for path in _files(directory):
        with suppress(OSError):  # the first rank removes them when it begins
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def forget_words(directory: Path) -> None:
    """Remove them, as the first rank does before it trains."""
    for path in _files(directory):
        path.unlink(missing_ok=True)


def _files(directory: Path) -> list[Path]:
    return [*(directory / FOLDER).glob("*.txt")]
