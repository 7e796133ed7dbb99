"""Runs one by one: a line each, or one of them whole. Imports no torch."""

import argparse
import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench.errors import DONE, UserMistake
from genbench.results import Record, Result, read_records, read_result
from genbench.runs import Status, default_outputs, find_run, read_status
from genbench.score import ORDER, Score
from genbench.tables import Cell, Column, Table, number, render

# of every run; its scores follow
FIELDS = (
    "run", "model", "dataset", "seed", "study", "tags", "status", "reason", "images", "total_images",
    "started", "seconds", "score_name", "score", "fingerprint", "path",
)  # fmt: skip

# --- genbench runs --------------------------------------------------------------------------------


def main_runs(argv: list[str]) -> int:
    """Print a line per run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench runs",
        description="Print a line per run.",
        epilog="examples: genbench runs status=failed --format json | jq '.[].reason' · "
        "genbench runs tag latest +baseline · genbench runs remove status=failed --dry-run",
    )
    parser.add_argument("select", nargs="*", help="runs, or selections: model=gan status=failed")
    parser.add_argument("--format", choices=("table", "json", "csv", "md"), default="table")
    parser.add_argument("--sort", help="order by this column (default: run)")
    parser.add_argument("--reverse", action="store_true", help="largest or newest first")
    parser.add_argument("--outputs", type=Path, help="where the runs are (default: outputs)")
    options = parser.parse_intermixed_args(argv)
    outputs = options.outputs or default_outputs()
    lines = [line(record) for record in read_records(options.select, outputs)]
    lines = _sorted(lines, options.sort or "run", options.reverse)
    if options.format == "json":
        print(json.dumps(lines, indent=1, ensure_ascii=False))
    elif options.format == "csv":
        print(_csv(lines), end="")
    elif not lines:
        chosen = f" that fit {' '.join(options.select)}" if options.select else ""
        print(f"there are no runs in {outputs}{chosen}: start one with `genbench train`")
    else:
        print(render([_table(lines, str(outputs))], options.format))
    return DONE


def line(record: Record) -> dict[str, Any]:
    """One run as a flat object: what it is, how it is doing, its scores as `final/<name>`.

    A record that cannot be read is `unreadable`, with the reason; the others are listed all the same.
    """
    status, result, run = record.status, record.result, record.run
    if result is None:
        return _unreadable(run, record.damage or "")
    main = _main_score(result.scores)
    return {
        "run": run.name,
        "model": result.model,
        "dataset": result.dataset,
        "seed": result.seed,
        "study": result.study,
        "tags": ",".join(result.tags) or None,
        "status": status.status,
        "reason": status.reason,
        "images": status.images or result.budget.get("images") or 0,
        "total_images": status.total_images,
        "started": status.started,
        "seconds": result.budget.get("seconds"),
        "score_name": main.quantity if main else None,
        "score": main.value if main else None,
        "fingerprint": result.fingerprint,
        "path": str(run),
        **_by_name(result.scores),
    }


def _unreadable(run: Path, reason: str) -> dict[str, Any]:
    known = {"run": run.name, "status": "unreadable", "reason": reason, "path": str(run)}
    return dict.fromkeys(FIELDS) | {"images": 0, "total_images": 0} | known


def _by_name(scores: Sequence[Score]) -> dict[str, float | None]:
    """Values by `final/<name>`: of the run's own protocol; with their protocol, of any other."""
    own: dict[str, str] = {}
    values: dict[str, float | None] = {}
    for score in scores:
        name = f"{score.checkpoint}/{score.name}"
        same = own.setdefault(name, score.protocol) == score.protocol
        values[name if same else f"{name} [{score.protocol}]"] = score.value
    return values


def _main_score(scores: Sequence[Score]) -> Score | None:
    """Of a run's scores the one that people read first."""
    known = [s for s in scores if s.value is not None and s.quantity in ORDER]
    return min(known, key=lambda score: ORDER.index(score.quantity), default=None)


def _sorted(lines: list[dict[str, Any]], name: str, backwards: bool) -> list[dict[str, Any]]:
    known = {k for one in lines for k in one}
    if lines and name not in known:
        raise UserMistake(f"--sort {name} is not a column: there are {', '.join(sorted(known))}")
    there = [one for one in lines if one.get(name) is not None]
    ordered = sorted(there, key=lambda one: one[name], reverse=backwards)
    return ordered + [one for one in lines if one.get(name) is None]


def _csv(lines: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(key for one in lines for key in one))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _table(lines: list[dict[str, Any]], title: str) -> Table:
    heads = [Column(k, k, numeric=False) for k in ("run", "model", "dataset")]
    heads += [Column("seed", "seed"), Column("study", "study", numeric=False)]
    heads += [Column("status", "status", numeric=False), Column("images", "images")]
    heads += [Column("score", "score"), Column("age", "age")]
    rows = []
    for one in lines:
        total = one["total_images"]
        shown = f"{one['images']:,}" + (f"/{total:,}" if 0 < one["images"] < total else "")
        texts = [_plain(one[key]) for key in ("run", "model", "dataset", "seed", "study")]
        score = f"{one['score_name']} {number(one['score'])}" if one["score_name"] else ""
        texts += [one["status"], shown, score, age(one["started"])]
        rows.append([Cell(text) for text in texts])
    notes = [f"{one['run']}: {' '.join(one['reason'].split())}" for one in lines if one["reason"]]
    return Table(title, heads, rows, notes)


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def age(since: float | None) -> str:
    """Time since a moment, in the unit that fits."""
    if since is None:
        return ""
    seconds = max(0.0, time.time() - since)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# --- genbench show --------------------------------------------------------------------------------


def main_show(argv: list[str]) -> int:
    """Print one run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench show", description="Print one run: settings, scores, cost, files."
    )
    parser.add_argument("run", help="an id, a unique prefix of one, a path, or latest")
    parser.add_argument("--cards", action="store_true", help="print every score's card in full")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--outputs", type=Path, help="where the runs are (default: outputs)")
    options = parser.parse_args(argv)
    run = find_run(options.run, options.outputs or default_outputs())
    result, status = read_result(run), read_status(run)
    if options.format == "json":
        print(json.dumps(result.to_dict(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(_describe(run, result, status, options.cards)))
    return DONE


def _describe(run: Path, result: Result, status: Status, cards: bool) -> list[str]:
    config, environment = result.config, result.environment
    lines = [
        f"{result.run_id}: {result.model} on {result.dataset}, seed {result.seed}",
        f"  status       {status.status}" + (f": {status.reason}" if status.reason else ""),
        *(f"  warning      {warning}" for warning in result.warnings),
        f"  study        {result.study or '-'}   fingerprint {result.fingerprint}",
        f"  command      {environment.get('command', '-')}",
    ]
    if environment:
        lines.append(f"  where        {_where(environment)}")
    lines += ["", "settings", *_settings(config)]
    lines += ["", "cost", *_cost(result)]
    lines += ["", "scores", *_scores(result.scores, cards)]
    files = sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file())
    shown = [f for f in files if not f.startswith("samples/")]
    pictures = len(files) - len(shown)
    lines += ["", f"files in {run}", *(f"  {name}" for name in shown)]
    return lines + ([f"  samples/: {pictures} pictures"] if pictures else [])


def _where(environment: Mapping[str, Any]) -> str:
    code, versions = environment.get("code") or {}, environment.get("versions") or {}
    dirty = ", with changes" if code.get("dirty") else ""
    commit = f", commit {code['commit'][:10]}{dirty}" if code.get("commit") else ""
    machine = f"{environment.get('device', '?')} on {environment.get('host', '?')}"
    return (
        f"{machine}; genbench {versions.get('genbench', '?')}{commit}, "
        f"torch {versions.get('torch', '?')}"
    )


def _settings(config: Mapping[str, Any]) -> list[str]:
    network, budget = config.get("network", {}), config["budget"]
    plain = {k: v for k, v in config["model"].items() if not isinstance(v, Mapping)}
    optimizers = {
        k: v
        for k, v in config["model"].items()
        if k.endswith("optimizer") and isinstance(v, Mapping)
    }
    choices = {k: v for k, v in config.get("choices", {}).items() if isinstance(v, str)}
    lines = [
        "  chosen       " + _pairs(choices),
        "  network      "
        + _pairs({k: v for k, v in network.items() if not isinstance(v, Mapping)}),
        "  model        " + _pairs({k: v for k, v in plain.items() if k != "_target_"}),
        "  budget       " + _pairs({k: v for k, v in budget.items() if k != "_target_"}),
    ]
    for name, optimizer in optimizers.items():
        kind = str(optimizer.get("_target_", "")).rpartition(".")[2]
        rest = {k: v for k, v in optimizer.items() if not k.startswith("_")}
        lines.append(f"  {name}: {kind} {_pairs(rest)}")
    return [line for line in lines if line.strip()]


def _pairs(content: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in content.items() if value is not None)


def _cost(result: Result) -> list[str]:
    cost, budget = result.cost, result.budget
    parameters = cost.get("parameters", {})
    lines = [f"  parameters   {name} {count:,}" for name, count in parameters.items()]
    if parameters:
        lines.append(f"  parameters   all {sum(parameters.values()):,}")
    steps = [("decoder", "generator_steps"), ("discriminator", "discriminator_steps")]
    done = ", ".join(f"{budget[key]:,} {name} steps" for name, key in steps if budget.get(key))
    lines.append(
        f"  images       {budget.get('images') or 0:,} shown" + (f" in {done}" if done else "")
    )
    for player, count in (budget.get("skipped_steps") or {}).items():
        lines.append(
            f"  skipped      {count:,} steps of the {player}: a loss or gradient no number"
        )
    if budget.get("seconds"):
        lines.append(f"  training     {budget['seconds']:.1f} s")
    for name in ("train", "sample"):
        speed = cost.get(f"{name}_images_per_second")
        if speed:
            lines.append(f"  speed        {speed:,.0f} images/s to {name}")
    if cost.get("peak_memory_bytes"):
        lines.append(f"  memory       {cost['peak_memory_bytes'] / 2**20:,.0f} MiB at most")
    return lines


def _scores(scores: Any, cards: bool) -> list[str]:
    lines = []
    for score in sorted(scores, key=_position):
        value = score.status if score.value is None else number(score.value, 5)
        interval = ""
        if score.low is not None and score.high is not None:
            interval = f" [{number(score.low, 4)}, {number(score.high, 4)}]"
        lines.append(
            f"  {score.name:<38} {value}{interval} {score.unit}".rstrip()
            + f"   ({score.checkpoint}, protocol {score.protocol})"
        )
        if cards:
            card = json.dumps(dict(score.card), indent=1, ensure_ascii=False)
            lines += [f"      {row}" for row in card.splitlines()]
    return lines or ["  none yet"]


def _position(score: Score) -> tuple[int, str]:
    name = score.quantity
    return ORDER.index(name) if name in ORDER else len(ORDER), score.name
