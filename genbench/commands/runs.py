"""`genbench runs`: list runs; `runs tag` changes their tags, `runs remove` deletes them."""

import argparse
import csv
import difflib
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench.commands.arguments import outputs_argument, runs_arguments
from genbench.comparison.tables import Cell, Column, Table, number, render
from genbench.errors import DONE, FAILED, UserMistake
from genbench.runs.files import explain_os_error
from genbench.runs.priors import prior_of, score_address
from genbench.runs.records import Record, read_records
from genbench.runs.result import write_tags
from genbench.runs.score import ORDER, Score
from genbench.runs.status import read_status

ACTIONS = ("tag", "remove")
SHOWN = 20  # runs to list before asking whether to delete them

# columns of every run; its scores follow
FIELDS = (
    "run", "model", "dataset", "seed", "study", "tags", "status", "reason", "images", "total_images",
    "started", "seconds", "score_name", "score", "fingerprint", "path",
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """List, tag or remove runs, as the first word says; returns the exit code."""
    if argv and argv[0] in ACTIONS:
        return {"tag": tag, "remove": remove}[argv[0]](argv[1:])
    try:
        return list_runs(argv)
    except UserMistake as error:
        near = difflib.get_close_matches(argv[0] if argv else "", ACTIONS, n=1)
        if not near:
            raise
        raise UserMistake(f"{error}; did you mean genbench runs {near[0]}?") from None


# --- listing --------------------------------------------------------------------------------------
def list_runs(argv: Sequence[str]) -> int:
    """Print a line per run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench runs",
        parents=[runs_arguments("runs, or selections: model=gan status=failed")],
        description="Print a line per run.",
        epilog="examples: genbench runs status=failed --format json | jq '.[].reason' · "
        "genbench runs tag latest +baseline · genbench runs remove status=failed --dry-run",
    )
    parser.add_argument("--format", choices=("table", "json", "csv", "md"), default="table")
    parser.add_argument("--sort", help="order by this column (default: run)")
    parser.add_argument("--reverse", action="store_true", help="largest or newest first")
    options = parser.parse_intermixed_args(list(argv))
    lines = [line(record) for record in read_records(options.select, options.outputs)]
    lines = _sorted(lines, options.sort or "run", options.reverse)
    if options.format == "json":
        print(json.dumps(lines, indent=1, ensure_ascii=False))
    elif options.format == "csv":
        print(_csv(lines), end="")
    elif not lines:
        chosen = f" that fit {' '.join(options.select)}" if options.select else ""
        print(f"there are no runs in {options.outputs}{chosen}: start one with `genbench train`")
    else:
        print(render([_table(lines, str(options.outputs))], options.format))
    return DONE


def line(record: Record) -> dict[str, Any]:
    """One run as a flat mapping: FIELDS, then its scores as `final/<name>`.

    A run whose record cannot be read has the status `unreadable` and the reason.
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
        "score_name": _quantity(main) if main else None,
        "score": main.value if main else None,
        "fingerprint": result.fingerprint,
        "path": str(run),
        **_by_name(result.scores),
    }


def _unreadable(run: Path, reason: str) -> dict[str, Any]:
    known = {"run": run.name, "status": "unreadable", "reason": reason, "path": str(run)}
    return dict.fromkeys(FIELDS) | {"images": 0, "total_images": 0} | known


def _by_name(scores: Sequence[Score]) -> dict[str, float | None]:
    """Values by `final/<name>`; a protocol other than the name's first as `final/<name> [<protocol>]`."""
    own: dict[str, str] = {}
    values: dict[str, float | None] = {}
    for score in scores:
        name = score_address(score)
        same = own.setdefault(name, score.protocol) == score.protocol
        values[name if same else f"{name} [{score.protocol}]"] = score.value
    return values


def _main_score(scores: Sequence[Score]) -> Score | None:
    """The score that is shown in the table: the first one in the order of ORDER, of the test if any.

    Of samples from the prior of training, where there are such.
    """
    known = [s for s in scores if s.value is not None and s.quantity in ORDER]
    known = [s for s in known if prior_of(s) is None] or known
    return min(known, key=lambda s: (s.split != "test", ORDER.index(s.quantity)), default=None)


def _quantity(score: Score) -> str:
    return score.quantity if score.split == "test" else f"{score.quantity}@{score.split}"


def _sorted(lines: list[dict[str, Any]], name: str, backwards: bool) -> list[dict[str, Any]]:
    known = {k for one in lines for k in one}
    if lines and name not in known:
        raise UserMistake(f"--sort {name} is not a column: there are {', '.join(sorted(known))}")
    present = [one for one in lines if one.get(name) is not None]
    ordered = sorted(present, key=lambda one: one[name], reverse=backwards)
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
    """Time since `since` (seconds since the epoch) in days, hours, minutes or seconds."""
    if since is None:
        return ""
    seconds = max(0.0, time.time() - since)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _chosen(words: Sequence[str], outputs: Path, usage: str) -> list[Record]:
    """Records of the runs that `words` name or select. UserMistake without words: never all runs."""
    if not words:
        raise UserMistake(f"which runs? {usage}")
    records = read_records(words, outputs)
    if not records:
        raise UserMistake(f"there are no runs in {outputs} that fit {' '.join(words)}")
    return list({record.run.resolve(): record for record in records}.values())


# --- tags -----------------------------------------------------------------------------------------
def tag(argv: Sequence[str]) -> int:
    """Add and remove tags: `SELECTION +name -name`; returns the exit code."""
    usage = "genbench runs tag latest +baseline -old"
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: genbench runs tag RUN|key=value ... +TAG -TAG\n\n  {usage}")
        return DONE
    # words like -old are tags: argparse leaves them among the unknown options
    parser = argparse.ArgumentParser(
        prog="genbench runs tag", parents=[outputs_argument()], add_help=False, allow_abbrev=False
    )
    options, words = parser.parse_known_args(list(argv))
    added = [word[1:] for word in words if word.startswith("+")]
    dropped = [word[1:] for word in words if word.startswith("-")]
    rest = [word for word in words if not word.startswith(("+", "-"))]
    for name in (*added, *dropped):
        if not name or name.startswith("-") or "," in name or "=" in name:
            raise UserMistake(
                f"{name!r} is not a tag: a tag is a word without ',' and '='; {usage}"
            )
    if not added and not dropped:
        raise UserMistake(f"no tag to add or remove: {usage}")
    records = _chosen(rest, options.outputs, usage)
    changed = [record for record in records if _retag(record, added, dropped)]
    unreadable = [record for record in records if record.result is None]
    for record in unreadable:
        print(f"genbench: left out: {record.damage}", file=sys.stderr)
    print(f"changed the tags of {_count(len(changed))}, {len(records) - len(changed)} left as is")
    return FAILED if unreadable else DONE


def _retag(record: Record, added: Sequence[str], dropped: Sequence[str]) -> bool:
    if record.result is None:
        return False
    before = list(record.result.tags)
    after = [name for name in dict.fromkeys([*before, *added]) if name not in dropped]
    if after == before:
        return False
    try:
        write_tags(record.run, after)
    except OSError as error:
        raise UserMistake(f"cannot tag {record.run}: {explain_os_error(error)}") from None
    return True


# --- removing -------------------------------------------------------------------------------------
def remove(argv: Sequence[str]) -> int:
    """Delete run directories after asking; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench runs remove",
        parents=[runs_arguments("runs, or selections: status=failed tags=old")],
        description="Delete run directories with everything in them. A running one is never deleted.",
        epilog="example: genbench runs remove status=failed study=first --dry-run",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_intermixed_args(list(argv))
    records = _chosen(options.select, options.outputs, "genbench runs remove status=failed")
    running = [record for record in records if record.status.status == "running"]
    idle = [record for record in records if record.status.status != "running"]
    for record in running:
        print(f"genbench: {record.run.name} is running and stays", file=sys.stderr)
    if options.dry_run:
        print(
            "\n".join(f"would delete {_summary(record)}" for record in idle) or "nothing to delete"
        )
        return DONE
    if not idle:
        raise UserMistake("nothing to delete: stop a run before you delete it")
    if not options.yes and not _agreed(idle):
        print("nothing was deleted")
        return DONE
    failures = [problem for problem in map(_delete, idle) if problem]
    print(f"deleted {_count(len(idle) - len(failures))}")
    for problem in failures:
        print(f"genbench: {problem}", file=sys.stderr)
    return FAILED if failures else DONE


def _agreed(records: Sequence[Record]) -> bool:
    if not sys.stdin.isatty():
        raise UserMistake(
            f"would delete {_count(len(records))}, and there is no terminal to ask on: add --yes, or "
            "--dry-run to see which"
        )
    print("\n".join(_summary(record) for record in records[:SHOWN]))
    if len(records) > SHOWN:
        print(f"... and {len(records) - SHOWN} more")
    answer = input(f"Delete {_count(len(records))} with checkpoints and samples? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


def _delete(record: Record) -> str | None:
    """Delete one run directory; returns the problem if it is running, no run, or cannot be deleted."""
    run = record.run
    if run.is_symlink() or not (run / "config.yaml").is_file():
        return f"{run} is not a run directory and stays"
    if read_status(run).status == "running":  # it may have been resumed while the user was asked
        return f"{run.name} is running and stays"
    # renamed first, so that an interrupted deletion leaves nothing that looks like a run
    doomed = run.with_name(f".{run.name}.{os.getpid()}.removed")
    try:
        os.replace(run, doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        return f"cannot delete {run}: {explain_os_error(error)}"
    return None


def _summary(record: Record) -> str:
    result = record.result
    what = f"{result.model} {result.dataset} seed {result.seed}" if result else "unreadable"
    return f"{record.run}  {what}  {record.status.status}"


def _count(count: int) -> str:
    return f"{count:,} run" + ("" if count == 1 else "s")
