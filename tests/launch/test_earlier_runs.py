"""The runs that a study already has, with an index and without one."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from genbench.errors import GenbenchError
from genbench.launch.earlier_runs import INDEX, RANK, EarlierRuns, identity
from genbench.launch.task import Task
from genbench.runs import index
from genbench.runs.config import read_config, write_config
from genbench.runs.directory import iter_runs
from genbench.runs.status import Status, read_status, write_status
from genbench.runs.stops import explain_exit

LONG = "a study whose name is so long that YAML breaks its line " * 3 + "into several"
STUDIES = ["a", "ab", "1", "1.0", "null", "yes: no", "# x", "ümlaut", "'quoted'", LONG, None, 1, 16]
CONFIG = {
    "model": {"_target_": "genbench.models.vae.VAE", "beta": 1.0, "note": "study: a\nstudy: a\n"},
    "dataset": {"name": "digits", "root": "here"},
    "budget": {"images": 128_000},
    "trainer": {"precision": "auto"},
    "evaluation": {"num_samples": 2000, "cache": "here"},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of files: no wait for the disk


def make_old(outputs: Path) -> None:
    """Set the modification times back, so that the index may trust them."""
    for file in outputs.glob("*/config.yaml"):
        os.utime(file, (1e9, 1e9))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Runs of many studies, some with equal method and seed, and some that cannot be read."""
    outputs = tmp_path_factory.mktemp("written") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        for number in range(130):
            run = outputs / f"run-{number:03d}"
            run.mkdir(parents=True)
            config = {"study": STUDIES[number % len(STUDIES)], "seed": number // 40, **CONFIG}
            write_config(run, dict(reversed(config.items())) if number % 10 == 0 else config)
            if number % 7:
                write_status(run, Status(RANK[number % len(RANK)], heartbeat=2.0))
    odd = {
        "flow": json.dumps({"study": "a", "seed": 99, **CONFIG}),
        "lines": "{\n" + json.dumps({"study": "b", "seed": 97, **CONFIG})[1:] + "\n",
        "twice": "study: b\nstudy: a\nseed: 98\n"
        + json.dumps(CONFIG)[1:-1].replace('"model"', "x"),
        "list": "- study: a\n",
        "broken": "study: a\nseed: [\n",
        "bytes": "",
        "lacking": "study: a\nseed: 1\n",
        "keys": "study: a\nseed: 96\nevaluation: {2: a, 10: b}\n"
        + "\n".join(f"{k}: {json.dumps(CONFIG[k])}" for k in CONFIG if k != "evaluation"),
    }
    for name, text in odd.items():
        (outputs / name).mkdir()
        (outputs / name / "config.yaml").write_text(text)
    (outputs / "bytes" / "config.yaml").write_bytes(b"study: a\xff\n")
    (outputs / "empty").mkdir()
    make_old(outputs)
    return outputs


@pytest.fixture
def outputs(tmp_path, written):
    return shutil.copytree(written, tmp_path / "outputs")


def parsed(outputs: Path, study: str) -> dict[str, tuple[str, str]]:
    """(run, status) by identity, found by parsing every config."""
    found: dict[str, tuple[str, str]] = {}
    for run in iter_runs(outputs):
        try:
            config = read_config(run)
            if config.get("study") is None or str(config["study"]) != study:
                continue
            key, status = identity(config), read_status(run).status
        except (GenbenchError, KeyError, AttributeError):
            continue
        if key not in found or RANK.index(status) >= RANK.index(found[key][1]):
            found[key] = run.name, status
    return found


def check(outputs: Path) -> None:
    """EarlierRuns finds what `parsed` finds, for every study."""
    for study in [*dict.fromkeys(map(str, STUDIES)), "b", "nothing"]:
        earlier, wanted = EarlierRuns(outputs, study), parsed(outputs, study)
        for run in iter_runs(outputs):
            try:
                config = read_config(run)
                name, status = wanted.get(identity(config), ("", "failed"))
            except (GenbenchError, KeyError, AttributeError):
                continue
            found = earlier.find(config)
            told = (found.directory.name, found.status) if found else None
            assert told == (None if status == "failed" else (name, status)), (study, run.name)


def entries(outputs: Path) -> int:
    with sqlite3.connect(index.index_file(outputs, INDEX)) as database:
        (count,) = database.execute("SELECT count(*) FROM entries").fetchone()
    database.close()
    return int(count)


@pytest.mark.slow
def test_earlier_runs_are_those_found_by_parsing_every_config(outputs):
    assert len(parsed(outputs, "a")) >= 4
    check(outputs)  # the first of these reads all, the others what the index lacks
    assert entries(outputs) >= 130
    check(outputs)


def test_with_an_index_only_changed_configs_are_opened(outputs, monkeypatch):
    for number in range(70):  # more than are worth writing
        shutil.copytree(outputs / "run-001", outputs / f"ab-{number}")
    make_old(outputs)
    EarlierRuns(outputs, "ab")
    opened: list[Path] = []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda *a, **k: opened.append(a[0]) or real(*a, **k))
    EarlierRuns(outputs, "ab")
    written = {run.name for run in iter_runs(outputs) if run.name[:2] in ("ru", "ab")}
    configs = {file.parent.name for file in opened if file.name == "config.yaml"}
    assert not configs & written
    statuses = {file.parent.name for file in opened if file.name == "status.json"}
    assert statuses == {n for n in written if read_config(outputs / n)["study"] == "ab"}


@pytest.mark.slow
def test_added_removed_and_changed_runs_are_noticed(outputs):
    check(outputs)
    shutil.rmtree(outputs / "run-000")
    write_config(outputs / "run-001", {"study": "a", "seed": 5, **CONFIG})
    shutil.copytree(outputs / "run-013", outputs / "run-900")
    for run in (outputs / "run-013", outputs / "run-014"):
        write_status(run, Status("finished"))
    check(outputs)


@pytest.mark.slow
def test_a_damaged_index_changes_no_decision(outputs):
    check(outputs)
    with sqlite3.connect(index.index_file(outputs, INDEX)) as database:
        database.execute("UPDATE entries SET content = replace(content, 'a', 'b')")
    database.close()
    check(outputs)


def test_an_identity_stays_what_it_is():
    """Indexes contain identities: with another formula, INDEX needs another number."""
    assert identity(CONFIG | {"seed": 3}) == "d4522cb45569"
    assert INDEX.startswith("identities-2-")


@pytest.mark.parametrize(
    ("reason", "checkpoint", "found"),
    [
        (explain_exit("the worker", -9), "last.ckpt", "interrupted"),
        (explain_exit("the worker", -9), None, None),
        ("ValueError: no", "last.ckpt", None),
    ],
)
def test_a_killed_run_with_a_checkpoint_is_continued_and_other_failures_begin_anew(
    tmp_path, reason, checkpoint, found
):
    run = tmp_path / "outputs" / "killed"
    (run / "checkpoints").mkdir(parents=True)
    config = {"study": "a", "seed": 0, **CONFIG}
    write_config(run, config)
    write_status(run, Status("failed", reason))
    if checkpoint:
        (run / "checkpoints" / checkpoint).touch()
    earlier = EarlierRuns(tmp_path / "outputs", "a").find(config)
    assert (earlier and earlier.status) == found
    assert earlier is None or earlier.resumable


def test_a_sweep_sees_runs_that_another_command_has_begun_meanwhile(tmp_path):
    outputs, task = tmp_path / "outputs", Task([], "")
    config = {"study": "a", "seed": 0, **CONFIG}
    assert task._earlier_runs(outputs, "a").find(config) is None
    (outputs / "other").mkdir(parents=True)
    write_config(outputs / "other", config)
    found = task._earlier_runs(outputs, "a")
    assert found.find(config).status == "running"
    assert task._earlier_runs(outputs, "a") is found  # nothing was added: not read again
