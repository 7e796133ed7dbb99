"""The table: methods in rows, scores in columns, seeds aggregated. Imports no torch.

A row is a fingerprint: runs that differ in their seed alone. A column is a score under one protocol:
numbers whose cards differ never share one. Runs that failed are counted, never dropped.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from genbench.budget import parse_images
from genbench.errors import DONE, UserMistake
from genbench.results import Result, load_results, method
from genbench.runs import default_outputs
from genbench.score import ORDER, Score, digest
from genbench.tables import FORMATS, Cell, Column, Table, number, render

SEEDS_FOR_SPREAD = 3  # below, a ± would be a guess (METRICS, section 6)
DEFAULT = ("fid", "fid_clean", "fd", "kid", "is", "coverage", "elbo", "bits_per_dim")
HEADERS = {
    "fd": "FD", "fid": "FID", "fid_clean": "FID clean", "kid": "KID", "is": "IS", "elbo": "ELBO",
    "bits_per_dim": "bits/dim", "iwae": "IWAE",
}  # fmt: skip
SETTINGS = ("network", "likelihood", "model", "budget", "dataset")  # where rows may differ
_DERIVED = (
    "network.decoder.",
    "network.trunk.",
    "model.decoder.",
    "model.encoder.",
    "model.discriminator.",
    "model.likelihood.",
    "model.latent_dim",
)

ScoreKey = tuple[str, str, str]  # name, checkpoint, protocol


@dataclass
class Row:
    """The runs of one method on one dataset."""

    label: str
    dataset: str
    model: str
    runs: list[Result]  # finished, newest of each seed, by seed
    unfinished: list[Result] = field(default_factory=list)
    repeated: int = 0  # finished runs that a newer one of the same seed replaces

    @property
    def untrained(self) -> bool:
        """Never shown an image: a floor."""
        return all(not run.budget.get("images") for run in self.runs) and bool(self.runs)

    def values(self, key: ScoreKey) -> list[float]:
        """The score's values, one per seed that has it."""
        return [
            s.value
            for run in self.runs
            for s in run.scores
            if _key(s) == key and s.value is not None
        ]

    def any_run(self) -> Result:
        """A run that stands for the method."""
        return (self.runs or self.unfinished)[0]


def _key(score: Score) -> ScoreKey:
    return score.name, score.checkpoint, score.protocol


# --- rows ---------------------------------------------------------------------------------------


def make_rows(results: Iterable[Result]) -> list[Row]:
    """Group runs by dataset and method; the newest finished run of a seed counts."""
    finished: dict[tuple[str, str, str, str], list[Result]] = defaultdict(list)
    unfinished: dict[tuple[str, str, str, str], list[Result]] = defaultdict(list)
    for result in sorted(results, key=lambda r: r.run_id):
        precise = result.status == "finished"
        (finished if precise else unfinished)[_method_key(result)].append(result)
    rows = {}
    for key, runs in finished.items():
        newest = {run.seed: run for run in runs}
        rows[key] = Row(
            key[1], key[0], key[1], [newest[seed] for seed in sorted(newest)], [],
            len(runs) - len(newest),
        )  # fmt: skip
    for key, runs in unfinished.items():
        home = next((k for k in rows if k[:3] == key[:3]), None)  # `auto` is not resolved yet
        if home is None:
            rows[key] = Row(key[1], key[0], key[1], [], runs)
        else:
            rows[home].unfinished += [r for r in runs if not _finished_later(r, rows[home])]
    _label(list(rows.values()))
    return sorted(rows.values(), key=lambda row: (row.dataset, row.label))


def _method_key(result: Result) -> tuple[str, str, str, str]:
    """Dataset, model, method without its precision, precision."""
    rest = method(result.config)
    precision = rest.pop("precision")
    return result.dataset, result.model, digest(rest), str(precision)


def _finished_later(run: Result, row: Row) -> bool:
    """An interrupted or failed try of a seed that a later run brought to its end is no failure."""
    return run.status in ("interrupted", "running") and any(
        other.seed == run.seed and other.run_id > run.run_id for other in row.runs
    )


def _label(rows: Sequence[Row]) -> None:
    """Name rows by their model, and where that is not enough by the settings that differ."""
    for row in rows:
        if row.untrained and row.any_run().cost.get("parameters"):
            row.label = f"{row.model} (untrained)"
    by_label: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.dataset, row.label].append(row)
    for alike in by_label.values():
        if len(alike) < 2:
            continue
        settings = [_settings(row.any_run().config) for row in alike]
        for row, differing in zip(alike, _differences(settings), strict=True):
            if differing:
                row.label = f"{row.label} ({differing})"


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = {"trainer.precision": config["trainer"]["precision"]}
    for section in SETTINGS:
        flat |= dict(_flatten(config.get(section) or {}, section))
    if flat.get("budget.images") is not None:
        flat["budget.images"] = parse_images(flat["budget.images"])
    return flat


def _flatten(node: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}.{name}"
        if isinstance(value, Mapping):
            yield from _flatten(value, key)
        else:
            yield key, value


def _differences(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each, the settings in which it differs from what most have, as a user would write them."""
    keys = sorted({key for one in settings for key in one})
    differing = [k for k in keys if len({str(one.get(k)) for one in settings}) > 1]
    if "auto" in {one.get("trainer.precision") for one in settings}:  # never came to be resolved
        differing = [k for k in differing if k != "trainer.precision"]
    own = [k for k in differing if not k.startswith(_DERIVED)]
    chosen: list[str] = []
    for key in own or differing:  # one key of those that always change together
        column = [str(one.get(key)) for one in settings]
        if all(column != [str(one.get(other)) for one in settings] for other in chosen):
            chosen.append(key)
    usual = {key: _usual([str(one.get(key)) for one in settings]) for key in chosen}
    return [
        ", ".join(f"{k}={_plain(one.get(k))}" for k in chosen if str(one.get(k)) != usual[k])
        for one in settings
    ]


def _usual(values: Sequence[str]) -> str | None:
    """The value that most have; None where no value leads."""
    counts = sorted(((values.count(value), value) for value in set(values)), reverse=True)
    return None if len(counts) > 1 and counts[0][0] == counts[1][0] else counts[0][1]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    return text.rpartition(".")[2] if text.startswith("genbench.") else text


# --- columns ------------------------------------------------------------------------------------


@dataclass
class ScoreColumn:
    """One score under one protocol."""

    key: ScoreKey
    example: Score
    header: str


def make_columns(rows: Sequence[Row], wanted: Sequence[str], show_all: bool) -> list[ScoreColumn]:
    """Find the columns of a table: default quantities, all, or those that `wanted` names."""
    found: dict[ScoreKey, Score] = {}
    for row in rows:
        for run in row.runs:
            for score in run.scores:
                found.setdefault(_key(score), score)
    _check_wanted(found.values(), wanted)

    def is_shown(score: Score) -> bool:
        names = (score.name, score.quantity)
        return any(n in wanted for n in names) if wanted else show_all or score.quantity in DEFAULT

    shown = {key: score for key, score in found.items() if is_shown(score)}
    ordered = sorted(shown.items(), key=lambda item: (_rank(item[1], wanted), item[0]))
    columns = [ScoreColumn(key, score, _header(score)) for key, score in ordered]
    _tell_apart(columns)
    return columns


def _check_wanted(scores: Iterable[Score], wanted: Sequence[str]) -> None:
    there = {name for score in scores for name in (score.name, score.quantity)}
    for name in wanted:
        if there and name not in there:
            raise UserMistake(f"no run has a score {name}: there are {', '.join(sorted(there))}")


def _rank(score: Score, wanted: Sequence[str]) -> int:
    order = [*wanted, *ORDER]
    ranks = [order.index(name) for name in (score.name, score.quantity) if name in order]
    return min(ranks, default=len(order))


def _header(score: Score) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[score.higher_is_better]
    return HEADERS.get(score.quantity, score.quantity.replace("_", " ")) + arrow


def _tell_apart(columns: Sequence[ScoreColumn]) -> None:
    """Give columns of one header different ones: by extractor, checkpoint or a letter."""
    alike: dict[str, list[ScoreColumn]] = defaultdict(list)
    for column in columns:
        alike[column.header].append(column)
    for same in alike.values():
        if len(same) < 2:
            continue
        tails = [_tail(column.example) for column in same]
        if len(set(tails)) < len(same):
            tails = [f"{tail} [{chr(97 + i)}]".strip() for i, tail in enumerate(tails)]
        for column, tail in zip(same, tails, strict=True):
            column.header = f"{column.header} {tail}"


def _tail(score: Score) -> str:
    own = score.name.removeprefix(f"{score.quantity}_")
    return own if score.checkpoint == "final" else f"{own} {score.checkpoint}"


def card_differences(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each card, the entries in which it differs from the others."""
    flat = [dict(_flatten(card, "")) for card in cards]
    keys = sorted({key for one in flat for key in one})
    differing = [k for k in keys if len({str(one.get(k)) for one in flat}) > 1]
    return [
        ", ".join(f"{key.lstrip('.')}={_plain(one[key])}" for key in differing if key in one)
        for one in flat
    ]


# --- cells --------------------------------------------------------------------------------------


def _score_cell(row: Row, column: ScoreColumn) -> Cell:
    values = row.values(column.key)
    if not values:
        return Cell()
    sd = stdev(values) if len(values) > 1 else None
    text = number(mean(values))
    if sd is not None and len(values) >= SEEDS_FOR_SPREAD:
        text += f" ± {number(sd, 2)}"
    exact = {
        "mean": mean(values),
        "sd": sd,
        "n": len(values),
        "values": values,
        "runs": [r.run_id for r in row.runs if any(_key(s) == column.key for s in r.scores)],
        "unit": column.example.unit,
        "higher_is_better": column.example.higher_is_better,
        "protocol": column.example.protocol,
        "card": dict(column.example.card),
    }
    return Cell(text, exact)


def _count_cell(row: Row) -> Cell:
    counts: dict[str, int] = defaultdict(int)
    for run in row.unfinished:
        counts[run.status] += 1
    extra = ", ".join(f"+{count} {status}" for status, count in sorted(counts.items()))
    text = f"{len(row.runs)} ({extra})" if extra else str(len(row.runs))
    return Cell(text, {"finished": len(row.runs), **counts})


@dataclass(frozen=True)
class Fact:
    """Something that a row cost, in a column only where rows differ in it."""

    column: Column
    values: list[float | None]  # one per row
    texts: list[str]
    note: str  # said instead of a column, where it is the same in all trained rows

    @property
    def same(self) -> bool:
        """Equal in every row that has it, floors apart."""
        return len({value for value in self.values if value}) <= 1 and any(self.values)


def _facts(rows: Sequence[Row]) -> list[Fact]:
    decoders = [row.any_run().cost.get("parameters", {}).get("decoder") for row in rows]
    images = [row.any_run().budget.get("images") if row.runs else None for row in rows]
    times = [[r.budget["seconds"] for r in row.runs if r.budget.get("seconds")] for row in rows]
    seconds = [mean(own) if own else None for own in times]
    return [
        Fact(
            Column("decoder_parameters", "decoder"),
            decoders,
            [number(d) for d in decoders],
            f"one decoder for all, {number(next(filter(None, decoders), None))} parameters",
        ),
        Fact(
            Column("images", "images"),
            images,
            [_images(i) if i is not None else "" for i in images],
            f"{_images(next(filter(None, images), 0))} images shown to each trained decoder",
        ),
        Fact(Column("seconds", "seconds"), seconds, [number(s, 3) for s in seconds], ""),
    ]


def _images(count: float) -> str:
    for size, suffix in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.4g}{suffix}"
    return str(count)


FACTS = ("decoder_parameters", "images", "seconds")


# --- the table ----------------------------------------------------------------------------------


def compare(
    results: Iterable[Result],
    metrics: Sequence[str] = (),
    show_all: bool = False,
    sort: str | None = None,
) -> list[Table]:
    """Make one table per dataset."""
    rows = make_rows(results)
    datasets = sorted({row.dataset for row in rows})
    return [
        _table(dataset, [row for row in rows if row.dataset == dataset], metrics, show_all, sort)
        for dataset in datasets
    ]


def _table(
    dataset: str, rows: list[Row], metrics: Sequence[str], show_all: bool, sort: str | None
) -> Table:
    columns = make_columns(rows, metrics, show_all)
    rows = _sorted(rows, columns, sort)
    facts = _facts(rows)
    told = [fact for fact in facts if fact.note and fact.same]
    shown = [fact for fact in facts if fact not in told and any(fact.values)]
    heads = [
        Column("model", "model", numeric=False),
        *(Column(_exact_name(c, columns), c.header) for c in columns),
        *(fact.column for fact in shown),
        Column("runs", "n", numeric=False),
    ]
    cells = [
        [
            Cell(row.label, {"label": row.label}),
            *(_score_cell(row, column) for column in columns),
            *(Cell(fact.texts[i], {"value": fact.values[i]}) for fact in shown),
            _count_cell(row),
        ]
        for i, row in enumerate(rows)
    ]
    arena = "; ".join(fact.note for fact in told)
    return Table(dataset, heads, cells, [*([arena] if arena else []), *_notes(rows, columns)])


def _exact_name(column: ScoreColumn, columns: Sequence[ScoreColumn]) -> str:
    """Name a column exactly: by its score, and by its protocol where the name is not enough."""
    name, checkpoint, protocol = column.key
    name = name if checkpoint == "final" else f"{name}@{checkpoint}"
    alone = sum(other.key[:2] == column.key[:2] for other in columns) == 1
    return name if alone else f"{name} [{protocol}]"


def _sorted(rows: list[Row], columns: Sequence[ScoreColumn], sort: str | None) -> list[Row]:
    """Best first by `sort` or the first column; floors and rows without the score last."""
    column = next((c for c in columns if sort in (c.key[0], c.example.quantity)), None)
    if sort and column is None:
        raise UserMistake(f"--sort {sort} is not a column: add --metric {sort}, or choose another")
    column = column or (columns[0] if columns else None)

    def position(row: Row) -> tuple[bool, bool, float, str]:
        values = row.values(column.key) if column else []
        best_first = -1 if column and column.example.higher_is_better else 1
        return row.untrained, not values, best_first * mean(values) if values else 0.0, row.label

    return sorted(rows, key=position)


def _notes(rows: Sequence[Row], columns: Sequence[ScoreColumn]) -> list[str]:
    """Say in words what the numbers are, and what is not in them."""
    notes = [_protocol_note(column) for column in columns]
    notes = list(dict.fromkeys(note for note in notes if note))
    by_name: dict[str, list[ScoreColumn]] = defaultdict(list)
    for column in columns:
        by_name[column.key[0]].append(column)
    for name, same in by_name.items():
        if len(same) > 1:
            differences = card_differences([column.example.card for column in same])
            for column, difference in zip(same, differences, strict=True):
                notes.append(f"{column.header}: {name} with {difference or column.key[1]}")
    repeated = sum(row.repeated for row in rows)
    if repeated:
        notes.append(f"{repeated} earlier runs of the same seed and method are not counted")
    for row in rows:
        for run in row.unfinished:
            reason = f": {run.reason}" if run.reason else ""
            notes.append(f"{row.label}, seed {run.seed}: {run.status}{reason}")
    return notes


def _protocol_note(column: ScoreColumn) -> str:
    card = column.example.card
    parts = []
    if extractor := card.get("extractor"):
        head = f"features: {extractor.get('name')}@{str(extractor.get('sha256', ''))[:8]}"
        real, fake = card.get("real") or card.get("heldout"), card.get("fake")
        if real and fake:
            parts = [
                head,
                f"{fake['n']:,} samples ({fake.get('weights', 'raw')} weights, seed {fake['seed']})",
                f"against {real['n']:,} images of {real['dataset']}, {real['split']} split",
            ]
    elif likelihood := card.get("likelihood"):
        data = card.get("heldout", {})
        parts = [
            f"likelihood: {likelihood}",
            f"{data.get('n', 0):,} images of the {data.get('split')} split",
        ]
    return ", ".join(parts)


# --- the command --------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Say what can be asked for."""
    result = argparse.ArgumentParser(
        prog="genbench compare",
        description="Print the table: methods in rows, scores in columns, seeds aggregated.",
        epilog="examples: genbench compare study=demo · genbench compare model=vae,gan "
        "dataset=mnist --metric fd --metric elbo --format md",
    )
    result.add_argument(
        "select", nargs="*", help="runs, or selections: model=gan seed=0,1 network.latent_dim=32"
    )
    result.add_argument("--metric", action="append", default=[], help="show this score; repeatable")
    result.add_argument("--all", action="store_true", help="show every score")
    result.add_argument("--sort", help="order by this score (default: the first column)")
    result.add_argument("--rows", choices=("model",), default="model", help="what is in a row")
    result.add_argument(
        "--columns", choices=("score", "dataset"), default="score", help="what is in a column"
    )
    result.add_argument("--format", choices=FORMATS, default="table")
    result.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    result.add_argument(
        "--pictures", type=Path, help="also write a PNG: every row's sample grids side by side"
    )
    result.add_argument("--outputs", type=Path, help="where the runs are (default: outputs)")
    return result


def main(argv: list[str]) -> int:
    """Print or write the table; returns the exit code."""
    options = parser().parse_args(argv)
    outputs = options.outputs or default_outputs()
    results = load_results(options.select, outputs)
    if not results:
        chosen = f" that fit {' '.join(options.select)}" if options.select else ""
        raise UserMistake(
            f"there are no runs in {outputs}{chosen}: start some with "
            "`genbench train -m model=vae,gan,vae-gan`, or see `genbench runs`"
        )
    tables = compare(results, options.metric, options.all, options.sort)
    if options.columns == "dataset":
        tables = by_dataset(tables)
    if options.pictures:
        _draw(results, outputs, options.pictures)
    text = render(tables, options.format)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return DONE


def _draw(results: Sequence[Result], outputs: Path, path: Path) -> None:
    """Draw the first seed of every row that was trained."""
    from genbench.contact_sheet import contact_sheet

    rows = [row for row in make_rows(results) if row.runs and not row.untrained]
    runs = [(f"{row.label} on {row.dataset}", outputs / row.runs[0].run_id) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(runs).save(path)


def by_dataset(tables: Sequence[Table]) -> list[Table]:
    """Turn tables of one dataset each into tables of one score each, datasets in columns."""
    facts = {*FACTS, "model", "runs"}
    keys = list(dict.fromkeys(c.key for t in tables for c in t.columns if c.key not in facts))
    turned = []
    for key in keys:
        cells: dict[str, dict[str, Cell]] = defaultdict(dict)
        for table in tables:
            for row in table.rows:
                for column, cell in zip(table.columns, row, strict=True):
                    if column.key == key:
                        cells[row[0].text][table.title] = cell
        datasets = [t.title for t in tables if any(c.key == key for c in t.columns)]
        heads = [Column("model", "model", numeric=False), *(Column(d, d) for d in datasets)]
        rows = [
            [Cell(label, {"label": label}), *(own.get(d, Cell()) for d in datasets)]
            for label, own in cells.items()
        ]
        turned.append(Table(key, heads, rows))
    return turned
