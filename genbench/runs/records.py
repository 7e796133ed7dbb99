"""Reads one run, or many: from their files, or from an index if no file has changed. No torch."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from genbench.errors import GenbenchError, UserMistake
from genbench.runs.config import read_config
from genbench.runs.directory import find_run, run_names
from genbench.runs.index import Index
from genbench.runs.method import method
from genbench.runs.moved import MOVED
from genbench.runs.paths import default_outputs
from genbench.runs.result import FILENAME, Result, explaining_damage, progress_fields, read_result
from genbench.runs.score import Score, digest
from genbench.runs.selection import fits, parse_selections, unless_damaged
from genbench.runs.stamps import is_settled, run_stamp
from genbench.runs.status import Status, as_of_now, read_status, read_written_status
from genbench.runs.stored_scores import StoredScores

# contains the names of fields and of moved classes: a change of either makes a new index
INDEX = "runs-" + digest(
    [[f.name for f in fields(kind)] for kind in (Result, Score, Status)] + [sorted(MOVED)], 8
)


@dataclass(frozen=True)
class Record:
    """A run as it is now. `result` is None if it cannot be read; then `damage` says why."""

    run: Path
    status: Status
    result: Result | None
    damage: str | None = None
    checked: bool = False  # whether `method` is known to work on its config

    def fits(self, key: str, wanted: str) -> bool:
        """Whether the selection `key=wanted` includes this run; a damaged config is never included."""
        if key == "status":
            return self.status.status in wanted.split(",")
        if key == "tags" and self.result:
            return any(tag in wanted.split(",") for tag in self.result.tags)
        config = self.result.config if self.result else unless_damaged(read_config, self.run)
        return config is not None and fits(config, key, wanted)


def load_results(arguments: Sequence[str] = (), outputs: Path | None = None) -> list[Result]:
    """Read the runs in `outputs` that `arguments` name or select (see `read_records`).

    A damaged run is left out, with a line on stderr.
    """
    return [result for _, result in load_runs(arguments, outputs)]


def load_runs(
    arguments: Sequence[str] = (), outputs: Path | None = None
) -> list[tuple[Path, Result]]:
    """Like `load_results`, each result with its run directory."""
    with garbage_collection_paused():
        records = read_records(arguments, outputs)
        read = ((record.run, unless_damaged(_checked_result, record)) for record in records)
        return [(run, result) for run, result in read if result is not None]


def some_runs(arguments: Sequence[str], outputs: Path) -> list[tuple[Path, Result]]:
    """Like `load_runs`; UserMistake if there are none."""
    found = load_runs(arguments, outputs)
    if not found:
        chosen = f" that fit {' '.join(arguments)}" if arguments else ""
        raise UserMistake(
            f"there are no runs in {outputs}{chosen}: start some with "
            "`genbench train -m model=vae,gan,vae-gan`, or see `genbench runs`"
        )
    return found


def _checked_result(record: Record) -> Result:
    """The result of a run; UserMistake if it is damaged or its config lacks what `method` reads."""
    if record.result is None:
        raise UserMistake(record.damage or f"{record.run} cannot be read")
    if not record.checked:
        with explaining_damage(record.run / FILENAME, "a result of genbench", "restore it"):
            method(record.result.config)
    return record.result


def find_runs(arguments: Sequence[str], outputs: Path | None = None) -> list[Path]:
    """Find runs by references and selections, like `read_records`."""
    return [record.run for record in read_records(arguments, outputs)]


def read_records(arguments: Sequence[str] = (), outputs: Path | None = None) -> list[Record]:
    """Read runs by references, or all runs that fit selections like `model=gan status=failed`.

    With both, of the runs named those that fit. A selection's key is a config group, `status`, `tags`,
    or a dotted path of the config; its value may be a comma list. Numbers are compared as numbers.
    Results share parts of configs and cards: do not change them.
    """
    outputs = default_outputs() if outputs is None else outputs
    references, selections = parse_selections(arguments)
    if references:
        records = [read_record(find_run(reference, outputs)) for reference in references]
    else:
        records = _read_all(outputs)
    return [record for record in records if all(record.fits(*s) for s in selections)]


def read_record(run: Path) -> Record:
    """Read a run; if it is damaged the record says so."""
    status = read_status(run)
    try:
        return Record(run, status, read_result(run))
    except GenbenchError as error:
        return Record(run, status, None, str(error))


def _read_all(outputs: Path) -> list[Record]:
    """Read all runs in a folder; those whose files have not changed are taken from the index."""
    with garbage_collection_paused():
        index = Index(outputs, INDEX)  # opened before listing: its runs existed by then
        names = run_names(outputs)
        records = []
        try:
            for name in names:
                path = f"{outputs}/{name}"
                stamp = run_stamp(path)
                if stamp is not None:
                    run = Path(path)
                    records.append(_from_index(index, run, stamp) or _from_files(index, run, stamp))
        finally:  # also after Ctrl-C, so that the next reader need not begin again
            index.save(names)
    return records


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pause the cyclic garbage collector: scanning the records of thousands of runs takes seconds."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _has_method(result: Result) -> bool:
    try:
        return bool(method(result.config))
    except (KeyError, TypeError, AttributeError, ValueError, UserMistake):
        return False


def _from_files(index: Index, run: Path, stamp: str) -> Record:
    """Read a run and put it into the index, unless it is damaged or a change could go unnoticed.

    A score is stored in two parts: value and interval, and the rest (name, card and protocol), which
    it has in common with the scores of other runs.
    """
    record = read_record(run)
    result = record.result
    if result is None or not is_settled(stamp) or not _has_method(result):
        return record
    content = {field.name: getattr(result, field.name) for field in fields(result)}
    content |= StoredScores.split(content.pop("scores"))
    content["finished"] = (run / FILENAME).exists()
    content["written_status"] = asdict(read_written_status(run))
    index.put(run.name, stamp, content)
    return record


def _from_index(index: Index, run: Path, stamp: str) -> Record | None:
    """The record of a run as of now; None if it is not in the index."""
    content = index.get(run.name, stamp)
    if content is None:
        return None
    status = as_of_now(run, Status(**content.pop("written_status")))
    if not content.pop("finished"):
        content |= progress_fields(status)
    scores = StoredScores(content.pop("score_kinds")["all"], content.pop("score_values"))
    return Record(run, status, Result(**content, scores=scores), checked=True)
