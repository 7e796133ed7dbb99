"""`genbench verify`: a run's samples are drawn again from its weights, and its scores must follow."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genbench import __version__
from genbench.commands.arguments import outputs_argument
from genbench.commands.evaluate import protocol
from genbench.errors import DONE, FAILED, UserMistake
from genbench.launch.run import run_verb
from genbench.runs import trust
from genbench.runs.directory import find_run
from genbench.runs.files import explain_os_error
from genbench.runs.machine import processor
from genbench.runs.result import FILENAME as RESULT
from genbench.runs.score import Score
from genbench.runs.verification import (
    OUT,
    TOLERANCE,
    Difference,
    Verification,
    differences,
    weights_of,
    write_verification,
)

SHOWN = 5  # differing scores that are printed


def parser() -> argparse.ArgumentParser:
    """Parser of the options of `genbench verify`."""
    result = argparse.ArgumentParser(
        prog="genbench verify",
        parents=[outputs_argument()],
        description="Draw a run's samples again from its weights, compute its scores again, and demand those "
        "of its record. The outcome is kept in the run (verified.json), and `genbench show` prints it.",
        epilog="examples: genbench verify latest · genbench verify 20260101 --tolerance 1e-2. The same machine "
        "gives the same bits; another processor or a GPU rounds otherwise.",
    )
    result.add_argument("runs", nargs="+", help="runs: an id, a unique prefix, a path, or latest")
    result.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"largest difference, relative to the value or half its interval (default {TOLERANCE:g})",
    )
    result.add_argument("--device", choices=("cpu", "cuda"), help="where (default: as evaluate)")
    return result


def main(argv: Sequence[str], worker: str = "genbench.work evaluate") -> int:
    """Verify runs; returns 0 if all scores follow, 1 if one does not, or the worker's exit code."""
    options = parser().parse_args(list(argv))
    worst = DONE
    for run in [find_run(reference, options.outputs) for reference in options.runs]:
        recorded = _recorded(run)
        weights = weights_of(run)
        code, again = _scored_again(run, options.device, argv, worker)
        if code != DONE:
            return code
        found = differences(recorded, again)
        if not found:
            raise UserMistake(
                f"{run.name} has no score of its final weights under the protocol of its config: nothing to verify"
            )
        beyond = [one for one in found if one.relative > options.tolerance]
        outcome = Verification(
            datetime.now(UTC).isoformat(timespec="seconds"),
            processor(),
            __version__,
            weights,
            len(found),
            max(one.relative for one in found),
            options.tolerance,
            [one.name for one in beyond],
        )
        print(f"{run.name}: {outcome.words()}")
        try:
            write_verification(run, outcome)
        except OSError as error:
            print(
                f"genbench: the outcome is not kept in {run}: {explain_os_error(error)}",
                file=sys.stderr,
            )
        print("".join(f"  {_told(one)}\n" for one in beyond[:SHOWN]), end="")
        worst = worst if outcome.passed else FAILED
    return worst


def _recorded(run: Path) -> list[Score]:
    """The scores that the run's own training recorded. Raises UserMistake if there are none."""
    try:
        content: dict[str, Any] = json.loads((run / RESULT).read_text(encoding="utf-8"))
        return [Score.from_dict(score) for score in content["scores"]]
    except FileNotFoundError:
        raise UserMistake(f"{run.name} has not finished: there are no scores to verify") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserMistake(f"{run / RESULT} is damaged ({error}): restore it") from None


def _scored_again(
    run: Path, device: str | None, argv: Sequence[str], worker: str
) -> tuple[int, list[Score]]:
    """(exit code, scores) of the run under its own protocol, of which its folder keeps nothing."""
    with tempfile.TemporaryDirectory(prefix="genbench-verify-") as scratch:
        path, scores = Path(scratch) / "config.yaml", Path(scratch) / "scores.json"
        content = {**protocol(trust.admitted(run, False), []), OUT: str(scores)}
        path.write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
        where = [] if device is None else ["--device", device]
        if not os.access(run, os.W_OK):  # scoring keeps pieces in the run's folder
            run = Path(shutil.copytree(run, Path(scratch) / run.name))
        code = run_verb([str(run), str(path), *where], "verify", argv, worker)
        if code != DONE:
            return code, []
        written = json.loads(scores.read_text(encoding="utf-8"))
    return code, [Score.from_dict(score) for score in written["scores"]]


def _told(one: Difference) -> str:
    values = ("none" if value is None else f"{value:.6g}" for value in (one.recorded, one.now))
    recorded, now = values
    return f"{one.name}: {recorded} recorded, {now} now ({one.relative:.2g})"
