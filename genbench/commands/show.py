"""`genbench show`: one run in full."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench.commands.arguments import outputs_argument
from genbench.comparison.costs import spent_on_scores
from genbench.comparison.settings import images_text
from genbench.comparison.tables import number
from genbench.errors import DONE, UserMistake
from genbench.runs.directory import find_run
from genbench.runs.gallery import FILLED_BY, VALUES, read_gallery
from genbench.runs.priors import prior_label, prior_of
from genbench.runs.result import Result, read_result
from genbench.runs.score import ORDER, Score, interval_notes
from genbench.runs.status import Status, read_status
from genbench.runs.verification import read_verification


def main(argv: Sequence[str]) -> int:
    """Print one run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench show",
        parents=[outputs_argument()],
        description="Print one run: settings, scores, cost, files.",
    )
    parser.add_argument("run", help="an id, a unique prefix of one, a path, or latest")
    parser.add_argument("--cards", action="store_true", help="print every score's card in full")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--gallery",
        action="store_true",
        help="print where its best, worst, copied and missed pictures are, with their numbers",
    )
    options = parser.parse_args(list(argv))
    run = find_run(options.run, options.outputs)
    result, status = read_result(run), read_status(run)
    if options.gallery:
        print("\n".join(_gallery(run)))
    elif options.format == "json":
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
    if verified := read_verification(run):
        lines.append(f"  verified     {verified.words()}")
    lines += ["", "settings", *_settings(config)]
    lines += ["", "cost", *_cost(result)]
    lines += ["", "scores", *_scores(result.scores, cards)]
    files = sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file())
    shown = [f for f in files if not f.startswith(("samples/", "gallery/"))]
    lines += ["", f"files in {run}", *(f"  {name}" for name in shown)]
    for folder in ("samples/", "gallery/"):
        if pictures := sum(f.startswith(folder) and f.endswith(".png") for f in files):
            lines.append(f"  {folder}: {pictures} pictures")
    return lines


def _gallery(run: Path) -> list[str]:
    """A paragraph for each sheet; UserMistake where the run keeps none."""
    kept = read_gallery(run)
    if kept is None:
        raise UserMistake(
            f"{run.name} keeps no gallery: `{FILLED_BY.format(run=run.name)}` writes it"
        )
    about = ", ".join(f"{name} {value}" for name, value in kept.of.items())
    lines = [f"{run.name}: {about}"]
    for sheet in kept.sheets:
        lines += ["", sheet.caption, f"  {sheet.path}"]
        for start in range(0, len(sheet.texts), sheet.columns):
            row = sheet.texts[start : start + sheet.columns]
            lines.append("  " + " ".join(f"{text:>8}" for text in row))
        lines.append(f"  ({VALUES[sheet.kind]})")
    return lines


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
    lines = _networks(cost)
    steps = [("decoder", "generator_steps"), ("discriminator", "discriminator_steps")]
    done = ", ".join(f"{budget[key]:,} {name} steps" for name, key in steps if budget.get(key))
    lines.append(
        f"  images       {budget.get('images') or 0:,} (steps x batch)"
        + (f", {done}" if done else "")
    )
    lines += _counted(budget)
    for player, count in (budget.get("skipped_steps") or {}).items():
        lines.append(
            f"  skipped      {count:,} steps of the {player}: the loss or a gradient was NaN or infinite"
        )
    if budget.get("seconds"):
        chosen = cost.get("selection_seconds")
        within = f", {chosen:.1f} s of it to select the best weights" if chosen else ""
        lines.append(f"  training     {budget['seconds']:.1f} s{within}")
    if curves := cost.get("curve_seconds"):
        lines.append(f"  curves       {curves:.1f} s, apart from the training")
    if spent := spent_on_scores(result):
        parts = sorted(spent.items(), key=lambda part: -part[1])
        said = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts if seconds >= 0.05)
        lines.append(f"  scoring      {sum(spent.values()):.1f} s: {said}".removesuffix(": "))
    for name in ("train", "sample"):
        speed = cost.get(f"{name}_images_per_second")
        if speed:
            lines.append(f"  speed        {speed:,.0f} images/s to {name}")
    if cost.get("peak_memory_bytes"):
        lines.append(f"  memory       {cost['peak_memory_bytes'] / 2**20:,.0f} MiB at most")
    return lines


def _networks(cost: Mapping[str, Any]) -> list[str]:
    """Parameters, and multiply-adds of one image forward, of each network; old runs have no work."""
    parameters = cost.get("parameters", {})
    work = cost.get("forward_multiply_adds") or {}
    lines = []
    for name, count in parameters.items():
        each = f", {images_text(work[name])} multiply-adds an image" if work.get(name) else ""
        lines.append(f"  parameters   {name} {count:,}{each}")
    if parameters:
        lines.append(f"  parameters   all {sum(parameters.values()):,}")
    return lines


def _counted(budget: Mapping[str, Any]) -> list[str]:
    """What was counted: rows through the networks, real images, multiply-adds; old runs have none."""
    images, rows = budget.get("images"), budget.get("rows")
    if not images:
        return []
    lines = [
        f"  rows         {name} {count:,} ({number(count / images)} x images)"
        for name, count in (rows or {}).items()
    ]
    if real := budget.get("real_images"):
        epochs = f", {number(budget['epochs'])} epochs" if budget.get("epochs") else ""
        lines.append(f"  real images  {real:,} ({number(real / images)} x images){epochs}")
    if work := budget.get("multiply_adds"):
        each = images_text(round(work / images))
        lines.append(
            f"  work         {images_text(work)} multiply-adds, {each} for each of the images"
        )
    return lines


def _scores(scores: Sequence[Score], cards: bool) -> list[str]:
    lines = []
    for score in sorted(scores, key=_position):
        value = score.status if score.value is None else number(score.value, 5)
        interval = ""
        if score.low is not None and score.high is not None:
            interval = f" [{number(score.low, 4)}, {number(score.high, 4)}]"
        lines.append(
            f"  {score.name:<38} {value}{interval} {score.unit}".rstrip()
            + f"   ({', '.join([score.checkpoint, *_prior(score)])}, protocol {score.protocol})"
        )
        if cards:
            card = json.dumps(dict(score.card), indent=1, ensure_ascii=False)
            lines += [f"      {row}" for row in card.splitlines()]
    return [*lines, *(f"  {note}" for note in interval_notes(scores))] or ["  none yet"]


def _prior(score: Score) -> list[str]:
    prior = prior_of(score)
    return [] if prior is None else [prior_label(prior)]


def _position(score: Score) -> tuple[list[str], int, str]:
    name = score.quantity
    return _prior(score), ORDER.index(name) if name in ORDER else len(ORDER), score.name
