"""The table: methods in rows, scores in columns, seeds aggregated. Imports no torch.

A row is a fingerprint: runs that differ in their seed alone. A column is a score under one protocol:
numbers whose cards differ never share one. Runs that failed are counted, never dropped.
"""

import argparse
import math
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from genbench.errors import DONE, UserMistake
from genbench.results import Result, load_results, method
from genbench.runs import default_outputs, explain_os_error, find_runs
from genbench.score import ORDER, Score, digest
from genbench.tables import FORMATS, Cell, Column, Table, number, render

LOST = 1.25  # final over best distance from which a note says so
SEEDS_FOR_SPREAD = 3  # below, a ± would be a guess (METRICS, section 6)
DEFAULT = (
    "fid", "fid_clean", "fd", "kid", "is", "coverage", "elbo", "iwae", "nll_ais", "bits_per_dim",
)  # fmt: skip
HEADERS = {
    "fd": "FD", "fid": "FID", "fid_clean": "FID clean", "kid": "KID", "is": "IS", "elbo": "ELBO",
    "bits_per_dim": "bits/dim", "iwae": "IWAE", "nll_ais": "NLL (AIS)",
}  # fmt: skip
# where another setting says it
_DERIVED = (
    "network.decoder.",
    "network.trunk.",
    "model.decoder.",
    "model.encoder.",
    "model.discriminator.",
    "model.likelihood.",
    "model.latent_dim",
    "arena.",
)

ScoreKey = tuple[str, str, str]  # name, checkpoint, protocol
MethodKey = tuple[str, str, str, str]  # dataset, model, method without precision, precision


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

    def scores(self, key: ScoreKey) -> list[tuple[Result, Score]]:
        """The score of each seed that has it, with or without a value; of several the newest."""
        found = [(run, [s for s in run.scores if _key(s) == key]) for run in self.runs]
        return [(run, own[-1]) for run, own in found if own]

    def values(self, key: ScoreKey) -> dict[str, float]:
        """The score's value by run, one per seed that has one."""
        return {r.run_id: s.value for r, s in self.scores(key) if s.value is not None}

    def doubtful(self, key: ScoreKey) -> bool:
        """Something speaks against a value that there is."""
        return any(s.value is not None and s.status != "ok" for _, s in self.scores(key))

    def any_run(self) -> Result:
        """A run that stands for the method."""
        return (self.runs or self.unfinished)[0]


def _key(score: Score) -> ScoreKey:
    return score.name, score.checkpoint, score.protocol


# --- rows ---------------------------------------------------------------------------------------


def make_rows(results: Iterable[Result]) -> list[Row]:
    """Group runs by dataset and method; the newest finished run of a seed counts."""
    finished: dict[MethodKey, list[Result]] = defaultdict(list)
    unfinished: dict[MethodKey, list[Result]] = defaultdict(list)
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
        home = _home(key, finished)
        if home is None:
            rows[key] = Row(key[1], key[0], key[1], [], runs)
        else:
            rows[home].unfinished += [r for r in runs if not _finished_later(r, rows[home])]
    _label(list(rows.values()))
    return sorted(rows.values(), key=lambda row: (row.dataset, row.label))


def _method_key(result: Result) -> MethodKey:
    """Dataset, model, method without its precision, precision."""
    rest = method(result.config)
    precision = rest.pop("precision")
    return result.dataset, result.model, digest(rest), str(precision)


def _home(key: MethodKey, finished: Iterable[MethodKey]) -> MethodKey | None:
    """Find the row of a run that did not finish: `auto` may not have become a precision yet."""
    alike = [k for k in finished if k == key or (k[:3] == key[:3] and key[3] == "auto")]
    return alike[0] if alike else None


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
    for alike in _same_label(rows):
        settings = [_settings(row.any_run().config) for row in alike]
        for row, differing in zip(alike, _differences(settings), strict=True):
            if differing:
                row.label = f"{row.label} ({differing})"
    for alike in _same_label(rows):  # where no setting tells them apart
        for row in alike:
            row.label = f"{row.label} [{row.any_run().fingerprint}]"


def _same_label(rows: Iterable[Row]) -> list[list[Row]]:
    by_label: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.dataset, row.label].append(row)
    return [alike for alike in by_label.values() if len(alike) > 1]


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """What the fingerprint covers, as a user would write it: `network=conv`, `budget.images=5M`."""
    covered = method(config)
    sections = {"network": config.get("network"), **covered}
    if "likelihood" in (covered["model"] or {}):
        sections["likelihood"] = config.get("likelihood")
    flat: dict[str, Any] = {"trainer.precision": sections.pop("precision")}
    for name, section in sections.items():
        flat |= dict(_flatten(section or {}, name))
    flat |= {"network._target_": _network(config)} if flat.get("network.latent_dim") else {}
    if flat.get("budget.images") is not None:
        flat["budget.images"] = _images(flat["budget.images"])
    return {key: _plain(value) for key, value in flat.items()}


def _network(config: Mapping[str, Any]) -> str:
    network = config["network"]
    kind = (network.get("decoder") or {}).get("_target_", "")
    return str(config.get("choices", {}).get("network") or kind)


def _flatten(node: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}.{name}"
        if isinstance(value, Mapping):
            yield from _flatten(value, key)
        else:
            yield key, value


_ABSENT, _OTHER = "", "?"  # not set; in a section of another kind, where it cannot be compared


@dataclass(frozen=True)
class _Setting:
    """One key in all rows whose section is of one kind."""

    key: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return len({*self.values} - {_OTHER}) > 1


def _differences(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Of each, the settings in which it differs from what most have, as a user would write them."""
    keys = sorted({key for one in settings for key in one}, key=lambda k: (not _is_kind(k), k))
    kinds = {key for key in keys if _is_kind(key)}
    differing = [s for key in keys for s in _by_kind(key, settings, kinds) if s.differs]
    if "auto" in {one["trainer.precision"] for one in settings}:  # never came to be resolved
        differing = [s for s in differing if s.key != "trainer.precision"]
    own = [s for s in differing if not s.key.startswith(_DERIVED)]
    chosen: dict[tuple[str, ...], str] = {}
    for setting in own or differing:  # one key of those that are always equal
        chosen.setdefault(setting.values, setting.key)
    parts: list[list[str]] = [[] for _ in settings]
    for values, key in chosen.items():
        usual = _usual(values)
        for place, value in enumerate(values):
            if value not in (usual, _OTHER):
                parts[place].append(_assignment(key, value))
    return [", ".join(own) for own in parts]


def _is_kind(key: str) -> bool:
    return key.endswith("._target_")


def _by_kind(
    key: str, settings: Sequence[Mapping[str, str]], kinds: Set[str]
) -> Iterable[_Setting]:
    """A setting's values; a width of one kind of network is not compared to that of another."""
    parts = key.split(".")
    above = [".".join(parts[:i]) + "._target_" for i in range(len(parts) - 1, 0, -1)]
    section = next((name for name in above if name in kinds and name != key), "")
    for kind in sorted({one.get(section, _ABSENT) for one in settings if key in one}):
        fits = (one.get(section, _ABSENT) == kind for one in settings)
        yield _Setting(
            key,
            tuple(
                one.get(key, _ABSENT) if fit else _OTHER
                for one, fit in zip(settings, fits, strict=True)
            ),
        )


def _usual(values: Sequence[str]) -> str | None:
    """The value that most have; None where no value leads."""
    counts = Counter(value for value in values if value != _OTHER).most_common()
    return None if len(counts) > 1 and counts[0][1] == counts[1][1] else counts[0][0]


def _assignment(key: str, value: str) -> str:
    name = key.removesuffix("._target_")
    return f"no {name}" if value == _ABSENT else f"{name}={value}"


def _plain(value: Any) -> str:
    """Write a value as in a command; a class as its config is named (`discretized-logistic`)."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    if text.startswith("genbench."):
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text.rpartition(".")[2]).lower()
    return text


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

    def is_shown(score: Score) -> bool:
        names = (score.name, score.quantity)
        return any(n in wanted for n in names) if wanted else show_all or score.quantity in DEFAULT

    shown = {key: score for key, score in found.items() if is_shown(score)}
    ordered = sorted(shown.items(), key=lambda item: (_rank(item[1], wanted), item[0]))
    columns = [ScoreColumn(key, score, _header(score)) for key, score in ordered]
    _tell_apart(columns)
    return columns


def _check_wanted(results: Iterable[Result], wanted: Sequence[str]) -> None:
    scores = [score for result in results for score in result.scores]
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
    """Give columns of one header different ones: by weights, then by extractor, then by a letter."""
    for tail in (_weights, _tail, None):
        alike: dict[str, list[ScoreColumn]] = defaultdict(list)
        for column in columns:
            alike[column.header].append(column)
        for same in (found for found in alike.values() if len(found) > 1):
            for place, column in enumerate(same):
                word = tail(column.example) if tail else f"[{chr(97 + place)}]"
                column.header = f"{column.header} {word}".rstrip()


def _weights(score: Score) -> str:
    """Whose weights, in a word; blank for the raw ones at the end."""
    kind = score.card.get("fake", {}).get("weights", "raw")
    words = [word for word in (kind, score.checkpoint) if word not in ("raw", "final")]
    return ", ".join(words)


def _tail(score: Score) -> str:
    return score.name.removeprefix(f"{score.quantity}_")


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
    by_run = row.values(column.key)
    values = list(by_run.values())
    if not values:
        return Cell()
    sd = stdev(values) if len(values) > 1 else None
    text = number(mean(values))
    if sd is not None and len(values) >= SEEDS_FOR_SPREAD:
        text += f" ± {number(sd, 2)}"
    if len(values) < len(row.runs):
        text += f" (n={len(values)})"
    if row.doubtful(column.key):
        text = f"({text})"
    exact = {
        "mean": mean(values),
        "sd": sd,
        "n": len(values),
        "values": values,
        "runs": list(by_run),
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
    _check_wanted([run for row in rows for run in row.runs], metrics)
    if sort:
        _check_sort(rows, metrics, show_all, sort)
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
    count = sum(len(row.runs) + len(row.unfinished) for row in rows)
    arena = "; ".join([f"{count} runs" if count > 1 else "1 run", *(fact.note for fact in told)])
    return Table(dataset, heads, cells, [arena, *_notes(rows, columns)])


def _exact_name(column: ScoreColumn, columns: Sequence[ScoreColumn]) -> str:
    """Name a column exactly: by its score, and by its protocol where the name is not enough."""
    name, checkpoint, protocol = column.key
    name = name if checkpoint == "final" else f"{name}@{checkpoint}"
    alone = sum(other.key[:2] == column.key[:2] for other in columns) == 1
    return name if alone else f"{name} [{protocol}]"


def _check_sort(rows: Sequence[Row], metrics: Sequence[str], show_all: bool, sort: str) -> None:
    """Refuse a column that no dataset's table has; where only one lacks it, the first one sorts."""
    columns = make_columns(rows, metrics, show_all)
    if not any(sort in (column.key[0], column.example.quantity) for column in columns):
        raise UserMistake(f"--sort {sort} is not a column: add --metric {sort}, or choose another")


def _sorted(rows: list[Row], columns: Sequence[ScoreColumn], sort: str | None) -> list[Row]:
    """Best first by `sort` or the first column; floors and rows without the score last."""
    column = next((c for c in columns if sort in (c.key[0], c.example.quantity)), None)
    column = column or (columns[0] if columns else None)

    def position(row: Row) -> tuple[bool, bool, float, str]:
        values = row.values(column.key) if column else {}
        best_first = -1 if column and column.example.higher_is_better else 1
        first = best_first * mean(values.values()) if values else 0.0
        return row.untrained, not values, first, row.label

    return sorted(rows, key=position)


def _notes(rows: Sequence[Row], columns: Sequence[ScoreColumn]) -> list[str]:
    """Say in words what the numbers are, and what is not in them."""
    by_protocol: dict[str, list[str]] = defaultdict(list)
    for column in columns:
        by_protocol[_protocol(column.example)].append(_bare(column))
    notes = [f"{', '.join(names)}: {words}" for words, names in by_protocol.items() if words]
    notes += list(dict.fromkeys(words for c in columns if (words := _ceiling(c.example))))
    by_name: dict[str, list[ScoreColumn]] = defaultdict(list)
    for column in columns:
        by_name[column.key[0]].append(column)
    for name, same in by_name.items():
        if len(same) > 1:
            differences = card_differences([column.example.card for column in same])
            for column, difference in zip(same, differences, strict=True):
                notes.append(f"{column.header}: {name} with {difference or column.key[1]}")
    notes += [f"{row.label}: {words}" for row in rows for words in _lost(row)]
    repeated = sum(row.repeated for row in rows)
    if repeated:
        runs = "1 earlier run" if repeated == 1 else f"{repeated} earlier runs"
        notes.append(f"not counted: {runs} of the same seed and method")
    for row in rows:
        notes += [f"{row.label}, {words}" for words in _missing(row, columns)]
    return notes


def _ceiling(score: Score) -> str:
    """What a perfect model would get: E[coverage] = 1 - prod (N - i) / (2N - i), Naeem et al. 2020."""
    card = score.card
    k, real, fake = card.get("estimator", {}).get("k"), card.get("real"), card.get("fake")
    if score.quantity != "coverage" or not k or not real or not fake:
        return ""
    n = min(real["n"], fake["n"], card["estimator"].get("max_images", real["n"]))
    missed = math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    return f"of images like the real ones, coverage is {1 - missed:.3f} and density 1 (k = {k})"


def _lost(row: Row) -> Iterable[str]:
    """Say where a row's final weights are much worse than its best ones."""
    pairs: dict[tuple[str, str], dict[str, ScoreKey]] = defaultdict(dict)
    for run in row.runs:
        for score in run.scores:
            if score.quantity in ("fd", "fid", "fid_clean") and score.value is not None:
                pairs[score.name, score.protocol][score.checkpoint] = _key(score)
    for (name, _), keys in pairs.items():
        if {"final", "best"} <= set(keys):
            final, best = (mean(row.values(keys[which]).values()) for which in ("final", "best"))
            if best > 0 and final / best > LOST:
                yield (
                    f"final {name} {number(final)} is {final / best:.1f} times its best "
                    f"({number(best)}, chosen on the validation split): it got worse in the end"
                )


def _bare(column: ScoreColumn) -> str:
    """Name a column in a sentence: `FD`, `ELBO (nats)`."""
    name = column.header.replace(" ↑", "").replace(" ↓", "")
    return f"{name} ({column.example.unit})" if column.example.unit else name


def _missing(row: Row, columns: Sequence[ScoreColumn]) -> Iterable[str]:
    """Say of each run of a row why it, or a score of it, is not in the numbers."""
    for run in row.unfinished:
        reason = f": {' '.join(run.reason.split())}" if run.reason else ""
        yield f"seed {run.seed}: {run.status}{reason}"
    for column in columns:
        for run, score in row.scores(column.key):
            if score.value is None:
                yield f"seed {run.seed}: no {_bare(column)}, {score.status}"
            elif score.status != "ok":
                yield f"seed {run.seed}: {_bare(column)} in brackets, {score.status}"


def _protocol(score: Score) -> str:
    card = score.card
    parts = []
    if extractor := card.get("extractor"):
        parts.append(f"features {extractor.get('name')}@{str(extractor.get('sha256', ''))[:8]}")
    if likelihood := card.get("likelihood"):
        parts.append(f"likelihood {likelihood}")
    sets = [_images_of(card[role]) for role in ("real", "heldout") if role in card]
    if fake := card.get("fake"):
        origin = f"({fake.get('weights', 'raw')} weights, seed {fake.get('seed')})"
        sets.insert(0, f"{fake['n']:,} samples {origin}")
    if sets:
        parts.append(" against ".join([sets[0], " and ".join(sets[1:])] if sets[1:] else sets))
    return ", ".join(parts)


def _images_of(data: Mapping[str, Any]) -> str:
    return f"{data.get('first', data.get('n', 0)):,} images of the {data.get('split')} split"


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
    options = parser().parse_intermixed_args(argv)
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
    if options.format == "table" and not options.out:
        tables = [part for table in tables for part in folded(table)]
    elif options.format == "csv":
        tables = [with_counts(table) for table in tables]
    if options.pictures:
        _draw(results, find_runs(options.select, outputs), options.pictures)
    _put(render(tables, options.format), options.out)
    return DONE


def _put(text: str, path: Path | None) -> None:
    if path is None:
        print(text)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserMistake(
            f"cannot write --out {path}: {explain_os_error(error)}; choose another file"
        ) from None


def _draw(results: Sequence[Result], directories: Iterable[Path], path: Path) -> None:
    """Draw the first seed of every row that was trained."""
    from genbench.contact_sheet import contact_sheet

    where = {directory.name: directory for directory in directories}
    rows = [row for row in make_rows(results) if row.runs and not row.untrained]
    runs = [(f"{row.label} on {row.dataset}", where[row.runs[0].run_id]) for row in rows]
    if not runs:
        raise UserMistake("--pictures: no run that was trained has finished, see `genbench runs`")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(runs).save(path)
    except OSError as error:
        raise UserMistake(
            f"cannot write --pictures {path}: {explain_os_error(error)}; choose another file"
        ) from None
    except ValueError:
        raise UserMistake(f"--pictures {path}: give the name of a .png file") from None


# --- other shapes of a table --------------------------------------------------------------------


def folded(table: Table) -> list[Table]:
    """Break a table that is wider than the terminal into parts of whole columns; rows repeat."""
    widths = [
        max(len(column.header), *(len(row[place].text) for row in table.rows)) + 2
        for place, column in enumerate(table.columns)
    ]
    room = max(80, shutil.get_terminal_size((100, 24)).columns) - 1 - widths[0]
    blocks: list[list[int]] = [[]]
    for place, width in enumerate(widths[1:], start=1):
        if blocks[-1] and sum(widths[p] for p in blocks[-1]) + width > room:
            blocks.append([])
        blocks[-1].append(place)
    parts = [
        Table(
            table.title,
            [table.columns[place] for place in (0, *block)],
            [[row[place] for place in (0, *block)] for row in table.rows],
        )
        for block in blocks
    ]
    return [*parts[:-1], replace(parts[-1], notes=table.notes)]


def with_counts(table: Table) -> Table:
    """Add a column for each way in which runs ended other than finished."""
    places = [i for i, column in enumerate(table.columns) if column.key == "runs"]
    counts = [dict(row[i].exact) for row in table.rows for i in places]
    ways = sorted({way for one in counts for way in one} - {"finished"})
    if not ways:
        return table
    rows = [
        [*row, *(Cell(str(one.get(way, 0)), {"value": one.get(way, 0)}) for way in ways)]
        for row, one in zip(table.rows, counts, strict=True)
    ]
    return replace(table, columns=[*table.columns, *(Column(w, w) for w in ways)], rows=rows)


def by_dataset(tables: Sequence[Table]) -> list[Table]:
    """Turn tables of one dataset each into tables of one score each, datasets in columns."""
    facts = {*FACTS, "model", "runs"}
    keys = list(dict.fromkeys(c.key for t in tables for c in t.columns if c.key not in facts))
    notes = [f"{table.title}: {note}" for table in tables for note in table.notes]
    parts = [_turned(key, tables) for key in keys]
    return [*parts[:-1], *(replace(part, notes=notes) for part in parts[-1:])]


def _turned(key: str, tables: Sequence[Table]) -> Table:
    cells: dict[str, dict[str, Cell]] = defaultdict(dict)
    heads = {}
    for table in tables:
        place = next((i for i, column in enumerate(table.columns) if column.key == key), None)
        if place is not None:
            heads[table.title] = table.columns[place].header
        for row in table.rows:
            own = cells[row[0].text]
            if place is not None:
                own[table.title] = row[place]
            own[f"n {table.title}"] = row[-1]
    columns = [Column("model", "model", numeric=False)]
    for dataset, header in heads.items():
        arrow = header[-1] if header[-1] in "↑↓" else ""
        columns.append(Column(dataset, f"{dataset} {arrow}".rstrip()))
        columns.append(Column(f"n {dataset}", "n", numeric=False))
    return Table(
        key,
        columns,
        [
            [Cell(label, {"label": label}), *(own.get(c.key, Cell()) for c in columns[1:])]
            for label, own in cells.items()
        ],
    )
