"""`genbench card`: a model card of a run, in Markdown, as model hubs read it."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from genbench.commands.arguments import outputs_argument
from genbench.comparison.settings import settings_of
from genbench.comparison.tables import number
from genbench.errors import DONE, UserMistake
from genbench.runs.directory import find_run
from genbench.runs.files import write_out
from genbench.runs.result import Result, read_result
from genbench.runs.score import Score, interval_notes

UNKNOWN = "not stated"


def main(argv: Sequence[str]) -> int:
    """Print or write the card; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench card",
        parents=[outputs_argument()],
        description="Print a model card of a finished run in Markdown: what it is, how it was trained, every "
        "score with the card that says how it was measured, the licence that you state, and the command that trains it.",
        epilog="example: genbench card latest --licence cc-by-4.0 --out README.md",
    )
    parser.add_argument("run", help="an id, a unique prefix of one, a path, or latest")
    parser.add_argument(
        "--licence", "--license", default=None, help="of the weights, as in cc-by-4.0"
    )
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    options = parser.parse_args(list(argv))
    result = read_result(find_run(options.run, options.outputs))
    if result.status != "finished":
        raise UserMistake(f"{result.run_id} is {result.status}: a card is of a finished run")
    text = card(result, options.licence)
    if options.out:
        write_out(options.out, text)
    else:
        print(text)
    return DONE


def card(result: Result, licence: str | None) -> str:
    """The card as Markdown with YAML in front, as model hubs read it; text of the run is escaped."""
    front: dict[str, Any] = {"library_name": "genbench"}
    front |= {"license": licence} if licence else {}
    front |= {
        "tags": ["image-generation", result.model, result.dataset],
        "datasets": [result.dataset],
    }
    environment, budget = result.environment, result.budget
    versions = environment.get("versions") or {}
    parameters = result.cost.get("parameters") or {}
    used = [f"{name} {version}" for name, version in versions.items()]
    lines = [
        "---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", "",
        f"# {_text(result.model)} on {_text(result.dataset)}, seed {result.seed}", "",
        f"Run `{_code(result.run_id)}`, method `{_code(result.fingerprint)}`, licence of the weights: "
        f"{_text(licence or UNKNOWN)}.", "",
        "## Trained by", "", "```", str(environment.get("command", UNKNOWN)).replace("```", "'''"), "```", "",
        f"{budget.get('images') or 0:,} images (steps x batch) in "
        f"{number(budget.get('seconds')) or '?'} s on {_text(str(environment.get('device', '?')))}; "
        + (", ".join(f"{_text(name)} {count:,}" for name, count in parameters.items()) or "no")
        + f" parameters; {_text(', '.join(used)) or 'versions not recorded'}.", "",
        "## Settings", "", "| setting | value |", "|:---|:---|",
        *(f"| {_text(key)} | {_text(value)} |" for key, value in settings_of(result.config).items()), "",
        "## Scores", "", *_scores(result.scores),
    ]  # fmt: skip
    warnings = [f"- {_text(warning)}" for warning in result.warnings]
    lines += ["", "## Warnings of the training", "", *warnings] if warnings else []
    return "\n".join(lines)


def _scores(scores: Sequence[Score]) -> list[str]:
    """A table, and below it how each protocol measures."""
    if not scores:
        return ["Not scored."]
    lines = [
        "| score | value | interval | unit | weights | protocol |",
        "|:---|---:|:---|:---|:---|:---|",
    ]
    for score in scores:
        value = score.status if score.value is None else number(score.value, 5)
        interval = ""
        if score.low is not None and score.high is not None:
            interval = f"{number(score.low)} to {number(score.high)}"
        cells = (score.name, value, interval, score.unit, score.checkpoint, score.protocol)
        lines.append("| " + " | ".join(_text(cell) for cell in cells) + " |")
    lines += ["", *(f"{_text(note)}  " for note in interval_notes(scores))]
    lines += ["", "How each was measured:", ""]
    for protocol, score in {score.protocol: score for score in scores}.items():
        content = json.dumps(dict(score.card), indent=1, ensure_ascii=False).replace("```", "'''")
        lines += [f"- `{_code(score.name)}` ({protocol})", "", "```json", content, "```", ""]
    return lines


def _text(text: str) -> str:
    """Without what Markdown or HTML would read: a name is a name."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    for letter in "\\`*_[]|":
        plain = plain.replace(letter, f"\\{letter}")
    return plain


def _code(text: str) -> str:
    return " ".join(str(text).split()).replace("`", "'")
