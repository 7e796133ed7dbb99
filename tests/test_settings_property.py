"""Any value of any setting: a run that starts, or a sentence that refuses it.

Needs hypothesis. Every day a few values of each group of configs are tried. GENBENCH_EXAMPLES=2 tries so many
of every leaf of every choice, and ends with the list of what it found; GENBENCH_SCAN=FILE notes what became of
each as a line of JSON.
"""

import contextlib
import json
import math
import os
import signal
import time
import warnings
from pathlib import Path

import pytest

from fixtures.leaves import GROUPS, choices, leaves, make_pictures
from fixtures.settings import outcome
from genbench.errors import Diverged, UserMistake
from genbench.training import trainer

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
EXAMPLES, SCAN = int(os.environ.get("GENBENCH_EXAMPLES", "0")), os.environ.get("GENBENCH_SCAN")
PREPARED = (  # starting them takes long, or training on to their end
    "trainer.devices", "trainer.compile", "dataset.cache_gb", "budget.epochs", "evaluation.devices",
)  # fmt: skip
SECONDS = 90  # after which a small run is said to hang
VALUES = [
    0, -1, 1, 0.5, 2, -3, 1.5, 4, -0.5, 100, 1e-9, math.nan, math.inf, -math.inf, "x", "null", "true",
    "false", "[1]", "[]", "{}", "1e3", "[0.1,2]", "''",
]  # fmt: skip


def values(leaf, number=0):
    """Values for a leaf; each number begins with another one, which hypothesis tries first."""
    pool = list(VALUES)
    if isinstance(leaf.default, int | float) and not isinstance(leaf.default, bool):
        pool[1:1] = [2 * leaf.default, -leaf.default, leaf.default / 2, leaf.default + 1]
    begin = number % len(pool)
    return st.sampled_from(pool[begin:] + pool[:begin])


@contextlib.contextmanager
def awaited(what):
    """Fail where a run hangs."""

    def hangs(number, frame):
        raise TimeoutError(f"{what} takes more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(leaf, value, folder):
    """What is wrong with the end of a small run that has a value; empty for a start and for a sentence."""
    override, began = f"{leaf.name}={value}", time.process_time()
    with warnings.catch_warnings(), awaited(override):
        warnings.simplefilter("ignore")
        fits = leaf.name not in PREPARED
        logs = leaf.choice.startswith("logger=")
        ended = outcome([*leaf.base, override], folder, fits, leaf.is_scored, logs)
    fine = ended is None or (isinstance(ended, UserMistake | Diverged) and "\n" not in str(ended))
    if SCAN:
        line = {
            "choice": leaf.choice, "leaf": leaf.name, "value": str(value), "fine": fine,
            "end": ended and f"{type(ended).__name__}: {ended}", "seconds": time.process_time() - began,
        }  # fmt: skip
        with Path(SCAN).open("a") as file:
            file.write(json.dumps(line) + "\n")
    return "" if fine else f"{leaf.choice or 'default'}: {override}: {ended}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the small runs are."""
    folder = tmp_path_factory.mktemp("settings")
    trainer.quieten_lightning()
    make_pictures(folder)
    return folder


def plan(examples, **changes):
    return hypothesis.settings(max_examples=examples, deadline=None, database=None, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_value_starts_a_run_or_is_answered_by_a_sentence(group, folder, monkeypatch):
    monkeypatch.chdir(folder)
    if EXAMPLES:
        _scan([leaf for choice in choices(group) for leaf in leaves(choice, folder)], folder)
        return
    some = [leaf for choice in choices(group)[::9] for leaf in leaves(choice, folder)]

    @plan(2, derandomize=True)
    @hypothesis.given(st.sampled_from(some).flatmap(lambda x: st.tuples(st.just(x), values(x))))
    def holds(setting):
        assert not tried(*setting, folder)

    holds()


def _scan(found, folder):
    """Equally many values of every leaf; the wrong ends of all together."""
    wrong: list[str] = []
    for number, leaf in enumerate(found):
        _each(leaf, number, folder, wrong)()
    assert not wrong, "\n".join(wrong)


def _each(leaf, number, folder, wrong):
    @hypothesis.seed(number)
    @plan(EXAMPLES, phases=[hypothesis.Phase.generate])
    @hypothesis.given(values(leaf, number))
    def look(value):
        wrong.extend(filter(None, [tried(leaf, value, folder)]))

    return look
