"""All that a report says about a study, before it is laid out. Imports no torch."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from genbench.comparison.columns import HEADERS, ScoreColumn
from genbench.comparison.contact_sheet import KINDS, last_grids
from genbench.comparison.costs import cost_table, seconds_table
from genbench.comparison.explained import gap_table, heading, sentence
from genbench.comparison.gap import Gap, gaps
from genbench.comparison.page.curves import Panel, loss_panels, score_panels
from genbench.comparison.page.failures import Failures, failures
from genbench.comparison.page.gap_plot import rate_panel
from genbench.comparison.page.pictures import Gallery, Picture
from genbench.comparison.page.timelapse import Timelapse, timelapse
from genbench.comparison.page.walk import MOST_BYTES, Walk, size_of, walk_of
from genbench.comparison.rows import Row, as_trained, groups
from genbench.comparison.significance import SEEDS_FOR_VERDICT
from genbench.comparison.table import Arena, table_of
from genbench.comparison.tables import Cell, Column, Table, number
from genbench.comparison.tradeoffs import Tradeoff, tradeoffs
from genbench.comparison.verdicts import find_versus, standings
from genbench.runs.history import read_history
from genbench.runs.paths import config_root
from genbench.runs.priors import grid_name
from genbench.runs.result import Result

CAPTIONS = {
    "samples": "Samples of the final weights, from the prior of training: N(0, I), or one over tokens that a "
    "model has learned. Methods that draw equal latents decode the same 64.",
    "priors": "Samples of the final weights under the other priors, each fitted to these weights.",
    "interpolations": "From one latent to another along the great circle, one pair per row; the same "
    "pairs for every method.",
    "reconstructions": "Validation images, each row above its reconstructions by encoder and decoder. The scores "
    "are means over held-out images and seeds.",
}
COMPARED = ("psnr", "ssim", "lpips", "rfd")  # scores that stand beside reconstructions
NO_CURVES = (
    "No run logged a score while it trained, and none can be computed afterwards. Train with "
    "`trainer.score_every=auto`: ten times per run it scores samples by the protocol of the validation split "
    "and chooses nothing; `selection=fd` measures the distance alone, and keeps the best weights."
)


@dataclass(frozen=True)
class Card:
    """How a score was taken."""

    title: str
    names: Sequence[str]
    text: str


@dataclass(frozen=True)
class Explanation:
    """Where the distances come from: bars, a sentence per method, the numbers, the rate of each latent."""

    gaps: Sequence[Gap]
    sentences: Sequence[str]
    table: Table
    rates: Panel | None


@dataclass(frozen=True)
class Section:
    """A dataset of the study."""

    dataset: str
    rows: Sequence[Row]
    table: Table
    verdicts: Sequence[str]
    versus_given: bool  # the row of the verdicts was named, not chosen by its score
    scores: Sequence[Panel]
    losses: Mapping[str, Sequence[Panel]]
    galleries: Sequence[Gallery]
    costs: Table
    seconds: Table | None  # of training and scoring, where runs have noted them
    cards: Sequence[Card]
    failed: Table | None
    explanation: Explanation | None = None
    tradeoffs: Sequence[Tradeoff] = ()
    walk: Walk | None = None
    timelapse: Timelapse | None = None
    failures: Failures | None = None

    @property
    def labels(self) -> list[str]:
        """Its methods, best first."""
        return [row.label for row in self.rows]


@dataclass(frozen=True)
class Study:
    """What the page is about."""

    title: str
    question: str
    commands: Sequence[str]
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def study_of(
    arenas: Sequence[Arena],
    directories: Mapping[str, Path],
    title: str,
    question: str | None,
    versus: str | None,
) -> Study:
    """Gather the record of runs into the content of a page; `directories` by run id.

    `versus` names the row that verdicts are given against, by default the best one of each dataset.
    UserMistake where no row is called so.
    """
    results = [
        run
        for arena in arenas
        for row in as_trained(arena.rows)
        for run in (*row.runs, *row.unfinished)
    ]
    chosen = find_versus([r for a in arenas for r in a.rows], versus) if versus else []
    against = {row.dataset: row for row in chosen}
    sections: list[Section] = []
    for arena in arenas:
        room = MOST_BYTES - sum(size_of(section.walk) for section in sections)
        sections.append(_section(arena, directories, against.get(arena.dataset), room))
    shown = joined_commands([str(run.environment.get("command") or "") for run in results])
    asked = question if question is not None else shipped_question(title)
    return Study(title, asked, shown, _facts(results), sections)


def joined_commands(commands: Sequence[str]) -> list[str]:
    """Join commands that differ only in the values of settings into one sweep."""
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for command in filter(None, commands):
        words = command.split()
        groups.setdefault(tuple(word.partition("=")[0] for word in words), []).append(words)
    return [_joined(alike) for alike in groups.values()]


def _joined(commands: Sequence[Sequence[str]]) -> str:
    words = [list(dict.fromkeys(own)) for own in zip(*commands, strict=True)]
    swept = any(len(own) > 1 for own in words)
    text = [
        own[0] + "".join(f",{other.partition('=')[2]}" for other in sorted(own[1:]))
        for own in words
    ]
    if swept and text[:2] == ["genbench", "train"]:
        text.insert(2, "-m")
    return " ".join(text)


def shipped_question(study: str) -> str:
    """The question of a study that ships, as its config opens with it; empty for any other."""
    path = config_root() / "experiment" / f"{study}.yaml"
    if not re.fullmatch(r"[\w-]+", study) or not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    words = [c for c in comments if not c.startswith(("@package", "genbench train"))]
    return " ".join(words).split(" `genbench compare")[0].strip()


def _facts(results: Sequence[Result]) -> list[tuple[str, str]]:
    """What all runs share, or how they differ in it."""
    environments = [run.environment for run in results if run.environment]
    versions = [e.get("versions", {}) for e in environments]
    commits = [str((e.get("code") or {}).get("commit") or "")[:8] for e in environments]
    seeds = sorted({run.seed for run in results})
    done = [run for run in results if run.status == "finished"]
    found = {
        "runs": [str(len(results))],
        "seeds": [", ".join(map(str, seeds))],
        "batch size": [str(run.config.get("budget", {}).get("batch_size", "")) for run in results],
        "device": [str(run.cost.get("device", "")) for run in results],
        "precision": [str(run.config["trainer"].get("precision", "")) for run in done],
        "genbench": [v.get("genbench", "") for v in versions],
        "torch": [v.get("torch", "") for v in versions],
        "commit": commits,
    }
    said = {name: ", ".join(dict.fromkeys(filter(None, values))) for name, values in found.items()}
    return [(name, text) for name, text in said.items() if text]


def _section(
    arena: Arena, directories: Mapping[str, Path], against: Row | None, room: int
) -> Section:
    rows, columns = arena.rows, arena.columns
    trained = [row for row in rows if row.runs and not row.untrained]
    own = as_trained(trained)
    where = {row.label: [directories[run.run_id] for run in row.runs] for row in own}
    histories = {label: [read_history(run) for run in own] for label, own in where.items()}
    failed = [(row, run) for row in as_trained(rows) for run in row.unfinished]
    return Section(
        dataset=arena.dataset,
        rows=rows,
        table=table_of(arena),
        verdicts=_verdicts(trained, columns, against),
        versus_given=against is not None,
        scores=score_panels(histories),
        losses={label: loss_panels(label, own) for label, own in histories.items()},
        galleries=[
            *_galleries(where, {row.label: _reconstructed(row) for row in own}),
            *_priors_gallery(trained, directories),
        ],
        costs=cost_table(trained),
        seconds=seconds_table(trained),
        cards=_cards(columns),
        failed=_failed(failed) if failed else None,
        explanation=_explanation(trained, directories),
        tradeoffs=tradeoffs(trained),
        walk=walk_of(own, directories, room),
        timelapse=timelapse(where),
        failures=failures(where),
    )


def _explanation(rows: Sequence[Row], directories: Mapping[str, Path]) -> Explanation | None:
    """What `genbench explain` says; None where no step but the last is known."""
    found = gaps(rows)
    if not any(gap.parts for gap in found):
        return None
    table = gap_table(found, f"Where the distance comes from: {heading(found)}")
    return Explanation(found, [sentence(g) for g in found], table, rate_panel(rows, directories))


def _verdicts(
    rows: Sequence[Row], columns: Sequence[ScoreColumn], against: Row | None
) -> list[str]:
    """A sentence per method and prior, against one of the same prior."""
    said: list[str] = []
    for alike in groups(rows):
        if len(alike) < 2 or (against is not None and against.prior != alike[0].prior):
            continue
        versus = against or alike[0]
        others = [row for row in alike if row is not versus]
        found = standings(others, columns, versus, chosen_by_score=against is None)
        said += [standing.sentence for standing in found]
    few = f"too few seeds for a verdict (it takes {SEEDS_FOR_VERDICT} each)"
    if len(said) > 1 and all(few in words and "UNEQUAL" not in words for words in said):
        return [f"{few}: {len(said)} comparisons say nothing, and the table alone is what there is"]
    return said


def _reconstructed(row: Row) -> str:
    """The scores of a row's reconstructions in a line: `PSNR 20.4 dB, SSIM 0.951`; empty without any."""
    said = {}
    for key, example in row.examples.items():
        values = list(row.values(key).values())
        if example.checkpoint == "final" and example.split == "test" and values:
            name = HEADERS.get(example.quantity, example.quantity)
            said[example.quantity] = f"{name} {number(mean(values))} {example.unit}".rstrip()
    return ", ".join(said[quantity] for quantity in COMPARED if quantity in said)


def _galleries(where: Mapping[str, Sequence[Path]], notes: Mapping[str, str]) -> list[Gallery]:
    """The pictures of every method's first seed; `notes` go to their reconstructions."""
    grids = {label: last_grids(own[0]) for label, own in where.items() if own}
    found = []
    for kind in KINDS:
        said = notes if kind == "reconstructions" else {}
        pictures = [
            Picture(label, own[kind], said.get(label, ""))
            for label, own in grids.items()
            if kind in own
        ]
        absent = [label for label, own in grids.items() if kind not in own]
        if pictures:
            found.append(Gallery(kind, CAPTIONS[kind], pictures, absent))
    return found


def _priors_gallery(rows: Sequence[Row], directories: Mapping[str, Path]) -> list[Gallery]:
    """Samples of the first seed under each other prior; none where there is no such picture."""
    pictures = []
    for row in rows:
        for run in row.runs[:1] if row.prior else []:
            path = directories[run.run_id] / "samples" / grid_name(row.defined)
            pictures += [Picture(row.label, path)] if path.exists() else []
    return [Gallery("samples", CAPTIONS["priors"], pictures, [])] if pictures else []


def _cards(columns: Sequence[ScoreColumn]) -> list[Card]:
    """A card per protocol; scores that differ in their quantity alone share one."""
    by_text: dict[str, list[ScoreColumn]] = {}
    for column in columns:
        card = {k: v for k, v in column.example.card.items() if k != "quantity"}
        text = json.dumps(card, indent=2, ensure_ascii=False, default=str)
        by_text.setdefault(text, []).append(column)
    return [
        Card(", ".join(dict.fromkeys(c.header for c in own)), [c.example.name for c in own], text)
        for text, own in by_text.items()
    ]


def _failed(runs: Sequence[tuple[Row, Result]]) -> Table:
    heads = [
        Column(name, name, numeric=False) for name in ("run", "model", "seed", "status", "why")
    ]
    cells = [
        [
            Cell(str(text))
            for text in (run.run_id, row.label, run.seed, run.status, run.reason or "")
        ]
        for row, run in runs
    ]
    return Table("failed runs", heads, cells)
