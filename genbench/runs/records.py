"""The record of a run: `result.json`, written once; reading many of them. Imports no torch."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError, UserMistake
from genbench.runs.config import read_config
from genbench.runs.directory import find_run, run_names
from genbench.runs.index import Index, is_settled, run_stamp
from genbench.runs.method import method
from genbench.runs.moved import MOVED
from genbench.runs.paths import default_outputs
from genbench.runs.result import FILENAME, Result, named, read_result, so_far
from genbench.runs.score import Score, digest
from genbench.runs.selection import fits, parse_selections, unless_damaged
from genbench.runs.status import Status, as_of_now, read_status, read_written_status

# --- many ---------------------------------------------------------------------------------------
# what was kept by a genbench whose records had other fields is not read
INDEX = "runs-" + digest(
    [[f.name for f in fields(kind)] for kind in (Result, Score, Status)] + [sorted(MOVED)], 8
)


@dataclass(frozen=True)
class Record:
    """A run as it is now. `result` is None where `damage` says what cannot be read."""

    run: Path
    status: Status
    result: Result | None
    damage: str | None = None
    checked: bool = False  # that its config has a method

    def fits(self, key: str, wanted: str) -> bool:
        """Is it one of those that `key=wanted` selects? A damaged config fits nothing."""
        if key == "status":
            return self.status.status in wanted.split(",")
        if key == "tags" and self.result:
            return any(tag in wanted.split(",") for tag in self.result.tags)
        config = self.result.config if self.result else unless_damaged(read_config, self.run)
        return config is not None and fits(config, key, wanted)


def load_results(arguments: Sequence[str] = (), outputs: Path | None = None) -> list[Result]:
    """Read every run in `outputs` that `arguments` name or select (see `read_records`).

    A damaged one is left out, which is said on stderr.
    """
    return [result for _, result in load_runs(arguments, outputs)]


def load_runs(
    arguments: Sequence[str] = (), outputs: Path | None = None
) -> list[tuple[Path, Result]]:
    """`load_results`, each with its directory."""
    with no_garbage():
        records = read_records(arguments, outputs)
        read = ((record.run, unless_damaged(_tabled, record)) for record in records)
        return [(run, result) for run, result in read if result is not None]


def some_runs(arguments: Sequence[str], outputs: Path) -> list[tuple[Path, Result]]:
    """`load_runs`, of which there must be some: UserMistake otherwise."""
    found = load_runs(arguments, outputs)
    if not found:
        chosen = f" that fit {' '.join(arguments)}" if arguments else ""
        raise UserMistake(
            f"there are no runs in {outputs}{chosen}: start some with "
            "`genbench train -m model=vae,gan,vae-gan`, or see `genbench runs`"
        )
    return found


def _tabled(record: Record) -> Result:
    """The result of a run that a table has a row for: its config says what its method is."""
    if record.result is None:
        raise UserMistake(record.damage or f"{record.run} cannot be read")
    if not record.checked:
        with named(record.run / FILENAME, "a result of genbench", "restore it"):
            method(record.result.config)
    return record.result


def find_runs(arguments: Sequence[str], outputs: Path | None = None) -> list[Path]:
    """Find runs by references and selections, like `read_records`."""
    return [record.run for record in read_records(arguments, outputs)]


def read_records(arguments: Sequence[str] = (), outputs: Path | None = None) -> list[Record]:
    """Read runs by references, or all runs that fit selections like `model=gan status=failed`.

    With both, the runs named are selected from. A selection's key is one of `choices`, `status`,
    `tags`, or a dotted path of the config; its value may be a comma list. Numbers are compared as
    numbers. Parts of configs and cards are shared by the results: they are not to be changed.
    """
    outputs = default_outputs() if outputs is None else outputs
    references, selections = parse_selections(arguments)
    if references:
        records = [read_record(find_run(reference, outputs)) for reference in references]
    else:
        records = _read_all(outputs)
    return [record for record in records if all(record.fits(*s) for s in selections)]


def read_record(run: Path) -> Record:
    """Read a run, damaged or not."""
    status = read_status(run)
    try:
        return Record(run, status, read_result(run))
    except GenbenchError as error:
        return Record(run, status, None, str(error))


def _read_all(outputs: Path) -> list[Record]:
    """Read a folder; what its index has of a run is taken from there if no file has changed."""
    with no_garbage():
        memory = _Memory(Index(outputs, INDEX))  # before the folder is listed: it was there then
        names = run_names(outputs)
        records = []
        try:
            for name in names:
                path = f"{outputs}/{name}"
                stamp = run_stamp(path)
                if stamp is not None:
                    run = Path(path)
                    record = memory.recall(run, stamp) or memory.keep(read_record(run), stamp)
                    records.append(record)
        finally:  # what was read is kept also if the reader was stopped
            memory.index.save(names)
    return records


@contextmanager
def no_garbage() -> Iterator[None]:
    """Let Python not look for garbage: among the records of thousands of runs that takes seconds."""
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


class _Memory:
    """Records in an index: scores as numbers, everything that runs have in common once."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._kinds: dict[str, list[dict[str, Any]]] = {}

    def keep(self, record: Record, stamp: str) -> Record:
        """Put a record into the index, unless it is damaged or a change could go unnoticed."""
        result = record.result
        if result is None or not is_settled(stamp) or not _has_method(result):
            return record
        facts = {f.name: getattr(result, f.name) for f in fields(result)}
        scores, config = facts.pop("scores"), facts.pop("config")
        kinds = self.index.share([self.index.share(self._kind(score)) for score in scores])
        numbers = [number for score in scores for number in (score.value, score.low, score.high)]
        self.index.put(
            record.run.name,
            stamp,
            [
                (record.run / FILENAME).exists(),
                list(asdict(read_written_status(record.run)).values()),
                self.index.pack(facts),
                self.index.pack(config),
                kinds,
                numbers,
            ],
        )
        return record

    def recall(self, run: Path, stamp: str) -> Record | None:
        """The record that was kept, as of now; None if it is not there or not whole."""
        content = self.index.get(run.name, stamp)
        if content is None:
            return None
        try:
            finished, written, packed, config, kinds, numbers = content
            status = as_of_now(run, Status(*written))
            facts = self.index.unpack(packed)
            facts["config"] = self.index.unpack(config)
            facts["_scores"] = partial(_scores, self._alike(kinds), numbers)
        except (KeyError, TypeError, ValueError):
            return None
        result = object.__new__(Result)  # as it was made once; a hundred thousand add up
        result.__dict__.update(facts if finished else facts | so_far(status))
        return Record(run, status, result, checked=True)

    def _kind(self, score: Score) -> list[Any]:
        """What a score has in common with those of other runs."""
        alike = {f.name: getattr(score, f.name) for f in fields(score)}
        for name in ("value", "low", "high"):
            del alike[name]
        return [alike, self.index.pack(alike.pop("card"))]

    def _alike(self, key: str) -> list[dict[str, Any]]:
        """What the scores of a run have in common with those of others; KeyError if damaged."""
        if key not in self._kinds:
            kinds = [self.index.part(kind) for kind in self.index.part(key)]
            self._kinds[key] = [alike | {"card": self.index.unpack(card)} for alike, card in kinds]
        return self._kinds[key]


def _scores(kinds: Sequence[Mapping[str, Any]], numbers: Sequence[float | None]) -> list[Score]:
    scores = []
    for place, alike in enumerate(kinds):
        score = object.__new__(Score)  # its protocol is known: no card is hashed again
        value, low, high = numbers[3 * place : 3 * place + 3]
        score.__dict__.update(alike, value=value, low=low, high=high)
        scores.append(score)
    return scores
