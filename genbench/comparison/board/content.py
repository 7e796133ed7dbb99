"""All that a board says about runs of many machines, before it is laid out. Imports no torch.

Nothing here names a machine's host: machines are letters beside what they are.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genbench.comparison.columns import ScoreColumn
from genbench.comparison.contact_sheet import last_grids
from genbench.comparison.reproduction import Claim, table
from genbench.comparison.rows import as_trained
from genbench.comparison.settings import settings_of
from genbench.comparison.table import Arena, arenas, table_of
from genbench.comparison.tables import Table, number
from genbench.runs.result import Result
from genbench.runs.score import Score, digest
from genbench.runs.status import read_written_status
from genbench.runs.verification import WEIGHTS, read_recorded, read_verification

PLAIN = re.compile(
    r"[A-Za-z0-9][\w.-]*", re.ASCII
)  # a run's name that is an address and a file as it is


@dataclass(frozen=True)
class Machine:
    """A machine by a letter, and what it is."""

    mark: str
    device: str


@dataclass(frozen=True)
class Card:
    """How scores were taken: a name for people, the scores, the text; `key` tells cards apart."""

    key: str
    title: str
    names: Sequence[str]
    text: str


@dataclass(frozen=True)
class Entry:
    """One run: what the index and its page say of it. `cells` are its values in the arena's columns."""

    result: Result
    label: str  # of its method
    slug: str  # of its page and pictures
    machine: Machine
    verified: str  # in words; empty if nobody has
    started: str  # day, UTC; empty if unknown
    pictures: Mapping[str, Path]
    cells: Sequence[str] = ()

    @property
    def scores(self) -> list[tuple[Score, str, str]]:
        """Every score with its value and its interval in words."""
        return [(score, _value(score), _interval(score)) for score in self.result.scores]

    @property
    def settings(self) -> Mapping[str, str]:
        """Its settings, flat."""
        return settings_of(self.result.config)

    @property
    def cards(self) -> list[Card]:
        """How each of its scores was taken."""
        return cards_of(self.result.scores)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What it took and where, without names of hosts."""
        result, environment = self.result, self.result.environment
        versions = environment.get("versions") or {}
        commit = str((environment.get("code") or {}).get("commit") or "")[:10]
        parameters = (result.cost.get("parameters") or {}).items()
        found = {
            "status": result.status + (f": {result.reason}" if result.reason else ""),
            "study": result.study or "",
            "tags": ", ".join(result.tags),
            "machine": f"{self.machine.mark}: {self.machine.device}",
            "started": self.started,
            "images": number(result.budget.get("images")),
            "seconds of training": number(result.budget.get("seconds")),
            "parameters": ", ".join(f"{name} {count:,}" for name, count in parameters),
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
            "commit": commit,
            "method": result.fingerprint,
        }
        return [(name, text) for name, text in found.items() if text]


@dataclass(frozen=True)
class Section:
    """A dataset: its methods, its runs, and which card each score column is of."""

    dataset: str
    key: str
    table: Table
    column_cards: Sequence[str]  # of the columns of scores, which follow the first one
    headers: Sequence[str]
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Board:
    """The site."""

    title: str
    sections: Sequence[Section]
    cards: Sequence[Card]
    machines: Sequence[Machine]
    claims: Sequence[tuple[Claim, Sequence[str]]]  # with name, claimed, band, measured, verdict
    entries: Sequence[Entry] = field(default_factory=tuple)


def board_of(
    runs: Sequence[tuple[Path, Result]], claims: Sequence[Claim], title: str = "runs"
) -> Board:
    """Gather runs (directory, record) and published claims. No scores of different cards share a column."""
    results = [result for _, result in runs]
    machines = _machines(results)
    found = arenas(results)
    sections = [_section(arena, place, runs, machines) for place, arena in enumerate(found)]
    measured = {claim.name: claim.of_runs(results) for claim in claims}
    rows = table(claims, {name: one for name, one in measured.items() if one is not None})
    columns = [column.example for arena in found for column in arena.columns]
    return Board(
        title,
        sections,
        cards_of(columns),
        list({machine.mark: machine for machine in machines.values()}.values()),
        list(zip(claims, rows, strict=True)),
        [entry for section in sections for entry in section.entries],
    )


def card_key(score: Score) -> str:
    """Scores that differ in their quantity alone share a card."""
    return digest({k: v for k, v in score.card.items() if k != "quantity"}, 10)


def cards_of(scores: Iterable[Score]) -> list[Card]:
    """The cards of scores, each once, with the scores that share it."""
    sharing: dict[str, dict[str, Score]] = {}
    for score in scores:
        sharing.setdefault(card_key(score), {})[score.name] = score
    made = []
    for key, own in sharing.items():
        card = {k: v for k, v in next(iter(own.values())).card.items() if k != "quantity"}
        text = json.dumps(card, indent=1, ensure_ascii=False, default=str)
        made.append(Card(key, ", ".join([*own, *_short(card)]), list(own), text))
    return made


def _short(card: Mapping[str, object]) -> list[str]:
    """What tells cards of one name apart most often: how many samples, which split."""
    fake = card.get("fake")
    n = fake.get("n") if isinstance(fake, Mapping) else None
    return [f"{n:,} samples"] if isinstance(n, int) else []


def _section(
    arena: Arena,
    place: int,
    runs: Sequence[tuple[Path, Result]],
    machines: Mapping[tuple[str, str], Machine],
) -> Section:
    labels = {
        run.fingerprint: row.label
        for row in as_trained(arena.rows)
        for run in (*row.runs, *row.unfinished)
    }
    entries = [
        _entry(run, result, labels[result.fingerprint], arena.columns, machines[_machine(result)])
        for run, result in runs
        if result.fingerprint in labels  # which has the data set in it
    ]
    order = {row.label: number for number, row in enumerate(arena.rows)}
    entries.sort(key=lambda one: (order[one.label], one.result.seed, one.result.run_id))
    return Section(
        arena.dataset,
        f"d{place}",
        table_of(arena),
        [card_key(column.example) for column in arena.columns],
        [column.header for column in arena.columns],
        entries,
    )


def _entry(
    run: Path, result: Result, label: str, columns: Sequence[ScoreColumn], machine: Machine
) -> Entry:
    started = _started(run)
    by_key = {(s.name, s.checkpoint, s.protocol): s for s in result.scores}
    cells = [_value(by_key[column.key]) if column.key in by_key else "" for column in columns]
    pictures = dict(last_grids(run))
    curves = run / "samples" / "curves.png"
    if curves.is_file():
        pictures["curves"] = curves
    slug = result.run_id if PLAIN.fullmatch(result.run_id) else f"run-{digest(result.run_id, 16)}"
    return Entry(result, label, slug, machine, _verified(run), started, pictures, cells)


def _started(run: Path) -> str:
    started = read_written_status(run).started
    return time.strftime("%Y-%m-%d", time.gmtime(started)) if started else ""


def _verified(run: Path) -> str:
    """What `genbench verify` found; where the weights are not here, what the record says that it found."""
    here = (run / WEIGHTS).is_file()
    found = read_verification(run) if here else read_recorded(run)
    if found is None or not found.passed:
        return ""
    return found.words() if here else f"{found.words()}, as its record says"


def _machine(result: Result) -> tuple[str, str]:
    device = result.cost.get("device") or result.environment.get("device") or "an unknown machine"
    return str(result.environment.get("host", "")), str(device)


def _machines(results: Iterable[Result]) -> dict[tuple[str, str], Machine]:
    """A letter for every host and device, in an order that does not depend on the names of hosts."""
    keys = dict.fromkeys(_machine(r) for r in sorted(results, key=lambda one: one.run_id))
    return {key: Machine(_letters(place), key[1]) for place, key in enumerate(keys)}


def _letters(place: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    letter = chr(ord("A") + place % 26)
    return letter if place < 26 else _letters(place // 26 - 1) + letter


def _value(score: Score) -> str:
    if score.value is None:
        return score.status
    text = number(score.value, 5)
    return text if score.status == "ok" else f"({text})"


def _interval(score: Score) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"{number(score.low)} to {number(score.high)}"
