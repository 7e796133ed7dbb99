"""The index of a folder of runs: never believed without proof, never needed."""

import copy
import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from genbench.runs import index
from genbench.runs.config import write_config
from genbench.runs.files import write_json
from genbench.runs.method import fingerprint
from genbench.runs.records import INDEX, load_results, read_records
from genbench.runs.result import Result, read_result, write_tags
from genbench.runs.score import Score
from genbench.runs.status import Status, write_status

CONFIG = {
    "seed": 0,
    "study": "first",
    "tags": [],
    "choices": {"model": "vae", "dataset": "digits"},
    "model": {"_target_": "genbench.models.vae.VAE", "beta": 1.0},
    "dataset": {"name": "digits"},
    "budget": {"images": 128_000},
    "trainer": {"precision": "32-true"},
}
NUMBER = 70  # more than are worth writing


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of files: no wait for the disk


def write(outputs, number, value=None, status="finished", age=100):
    run = outputs / f"run-{number:03d}"
    run.mkdir(exist_ok=True, parents=True)
    config = CONFIG | {"seed": number}
    write_config(run, config)
    write_status(run, Status(status, heartbeat=time.time(), images=number))
    if status == "finished":
        scores = [
            Score(
                "fd", value or number / 7, "", False, {"quantity": "fd", "n": {"of": 1}}, 1.0, None
            ),
            Score("kid", None, "", False, {"quantity": "kid", "seed": number}, status="nonfinite"),
        ]
        result = Result(
            run.name, "first", ["mine"], "finished", "vae", "digits", number, fingerprint(config),
            config, {"images": 128_000}, {"parameters": {"decoder": 1}}, scores, {"host": "here"},
        )  # fmt: skip
        write_json(run / "result.json", result.to_dict())
    settle(run, age)
    return run


def settle(run, age=100):
    """Set the modification times back by `age` seconds, so that the index may trust them."""
    for file in [*run.glob("*"), *run.glob("evaluations/*")]:
        os.utime(file, (time.time() - age,) * 2)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of runs, a tenth of them without a result."""
    outputs = tmp_path_factory.mktemp("written") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        for number in range(NUMBER):
            write(outputs, number, status="failed" if number % 10 == 9 else "finished")
    return outputs


@pytest.fixture
def outputs(tmp_path, written):
    """A copy of it that is indexed."""
    outputs = shutil.copytree(written, tmp_path / "outputs")
    load_results((), outputs)
    assert len(entries(outputs)) == NUMBER
    return outputs


def entries(outputs):
    with sqlite3.connect(index.index_file(outputs, INDEX)) as database:
        found = dict(database.execute("SELECT name, content FROM entries"))
    database.close()
    return found


def check(outputs):
    """What is read is what the files say."""
    read = load_results((), outputs)
    assert read == [read_result(outputs / result.run_id) for result in read]
    return {result.run_id: result for result in read}


def test_what_the_index_gives_is_what_the_files_say(outputs):
    found = check(outputs)
    assert len(found) == NUMBER
    one = found["run-003"]
    assert type(one.config) is dict
    assert json.loads(json.dumps(one.to_dict())) == json.loads(
        (outputs / "run-003" / "result.json").read_text()
    )
    assert [score.protocol for score in one.scores] == [
        score.protocol for score in read_result(outputs / "run-003").scores
    ]


def test_a_result_from_the_index_can_be_copied_changed_and_sent(outputs):
    plain, (kept,) = read_result(outputs / "run-003"), load_results(["seed=3"], outputs)
    for one in (kept, copy.deepcopy(kept), pickle.loads(pickle.dumps(kept)), replace(kept)):
        assert one == plain
        assert plain == one
    assert replace(kept, scores=[]).scores == []


def test_scores_from_the_index_are_a_sequence_of_scores(outputs):
    plain, (kept,) = read_result(outputs / "run-003"), load_results(["seed=3"], outputs)
    assert len(kept.scores) == len(plain.scores) == 2
    assert [kept.scores[0], *kept.scores[1:]] == list(kept.scores) == plain.scores
    assert kept.scores != plain.scores[:1]
    assert kept.scores != "scores"
    assert all(score == replace(score) for score in kept.scores)  # protocols are those of the cards


def test_what_runs_have_in_common_is_stored_and_read_once(outputs):
    first, second = load_results(["seed=3,4"], outputs)
    assert first.config["model"] is second.config["model"]
    with sqlite3.connect(index.index_file(outputs, INDEX)) as database:
        parts = [text for (text,) in database.execute("SELECT content FROM parts")]
    database.close()
    assert sum('"beta"' in text for text in parts) == 1


def test_an_index_entry_is_what_was_put(tmp_path):
    written = index.Index(tmp_path, "kind")
    names = [str(number) for number in range(index.WORTH_WRITING)]
    content = {
        "a": {"b": {"c": [1]}, "d": [], "e": {}, "f": None, "g": "x"},
        "h": [1, {}],
        "i": 2.5,
    }
    for name in names:
        written.put(name, "stamp", content)
    written.save(names)
    read = index.Index(tmp_path, "kind")
    assert [read.get(name, "stamp") for name in names] == [content] * len(names)
    assert read.get("0", "other") is None
    assert read.get("absent", "stamp") is None
    assert read.get("absent", "") is None


def test_a_warm_index_reads_no_record(outputs, monkeypatch):
    opened = []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda *a, **k: opened.append(a[0]) or real(*a, **k))
    assert len(load_results(["seed=3"], outputs)) == 1
    assert opened == []


@pytest.mark.parametrize("how", ["replaced", "edited", "evaluated", "tagged", "status", "config"])
def test_a_change_of_a_run_is_noticed(outputs, how):
    run = outputs / ("run-009" if how in ("status", "config") else "run-003")
    before = check(outputs)[run.name]
    if how == "replaced":
        write(outputs, 3, value=0.5)
    elif how == "edited":  # in place, of the same size
        text = (run / "result.json").read_text()
        (run / "result.json").write_text(text.replace('"nonfinite"', '"non!inite"'))
    elif how == "evaluated":
        (run / "evaluations").mkdir()
        score = Score("fd", 2.0, "", False, {"quantity": "fd", "n": 2})
        write_json(run / "evaluations" / "x.json", {"scores": [score.to_dict()]})
    elif how == "tagged":
        write_tags(run, ["other"])
    elif how == "status":
        write_status(run, Status("diverged"))
    else:
        write_config(run, CONFIG | {"seed": 1234})
    assert check(outputs)[run.name] != before


def test_runs_that_came_or_went_are_noticed(outputs):
    for number in range(NUMBER - 2):
        shutil.rmtree(outputs / f"run-{number:03d}")
    write(outputs, 500)
    assert set(check(outputs)) == {"run-068", "run-069", "run-500"} == set(entries(outputs))


def test_a_run_with_a_stale_heartbeat_is_interrupted_although_no_file_changed(
    tmp_path, monkeypatch
):
    outputs = tmp_path / "outputs"
    for number in range(NUMBER):
        write(outputs, number, status="running")
    assert {record.status.status for record in read_records((), outputs)} == {"running"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert len(entries(outputs)) == NUMBER
    assert {result.status for result in load_results((), outputs)} == {"interrupted"}
    assert len(load_results(["status=interrupted"], outputs)) == NUMBER


def test_a_file_too_new_for_its_timestamp_to_prove_it_is_read_again(tmp_path):
    outputs = tmp_path / "outputs"
    for number in range(NUMBER + 10):
        write(outputs, number, age=100 if number < NUMBER else 0)
    check(outputs)
    assert len(entries(outputs)) == NUMBER


def test_a_damaged_index_is_replaced(outputs):
    file = index.index_file(outputs, INDEX)
    whole = file.read_bytes()
    for damage in (b"no database", whole[: len(whole) // 2], whole[:100] + b"\xff" * 8000):
        file.write_bytes(damage)
        assert len(check(outputs)) == NUMBER
        assert len(check(outputs)) == NUMBER
    file.unlink()
    assert len(check(outputs)) == NUMBER
    assert len(entries(outputs)) == NUMBER


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET content = replace(content, '[', '{')",
        "UPDATE entries SET content = replace(content, '0', '1')",
        "UPDATE entries SET checksum = NULL",
        "UPDATE parts SET content = replace(content, 'a', 'b')",
        "DELETE FROM parts",
        "DROP TABLE parts",
        "PRAGMA user_version = 77",
    ],
)
def test_an_index_entry_with_a_wrong_digest_is_ignored(outputs, change):
    with sqlite3.connect(index.index_file(outputs, INDEX)) as database:
        database.execute(change)
    database.close()
    assert len(check(outputs)) == NUMBER
    assert len(check(outputs)) == NUMBER


def test_without_a_writable_cache_runs_are_read(outputs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "file"))
    assert len(check(outputs)) == NUMBER
    monkeypatch.setenv("GENBENCH_CACHE", "~nobody-of-this-name/cache")
    assert len(check(outputs)) == NUMBER


def test_nothing_is_written_into_the_folder_of_the_runs(outputs):
    assert {entry.name for entry in outputs.iterdir()} == {f"run-{n:03d}" for n in range(NUMBER)}


def test_a_few_runs_get_no_index(tmp_path):
    write(tmp_path / "few", 1)
    assert len(load_results((), tmp_path / "few")) == 1
    assert not index.index_file(tmp_path / "few", INDEX).exists()


# --- many at once ---------------------------------------------------------------------------------

CROWD = """
import json, os, sys, time
from pathlib import Path
from genbench.runs.result import Result, write_result
from genbench.runs.method import fingerprint
from genbench.runs.records import load_results
from genbench.runs.status import Status, write_status
from genbench.runs.directory import new_run_directory
from genbench.runs.files import write_json
from genbench.runs.score import Score

outputs, config, per = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
os.fsync = lambda _: None  # the crowd is what is tried here, not the disk


def writer(number):
    for place in range(per):
        run = new_run_directory(outputs)
        own = config | {"seed": number * per + place}
        write_json(run / "config.yaml", own)  # JSON is YAML
        write_status(run, Status("running", heartbeat=4e9))
        score = Score("fd", own["seed"] / 7, "", False, {"quantity": "fd"})
        write_result(run, Result(run.name, None, [], "finished", "vae", "digits", own["seed"],
                                 fingerprint(own), own, {}, {}, [score]))
        write_status(run, Status("finished"))


def reader():
    seen = 0
    while not (outputs.parent / "over").exists():
        found = load_results((), outputs)
        assert len(found) >= seen, "a run was lost"
        for result in found:
            assert [s.value for s in result.scores] in ([result.seed / 7], []), result
        seen = len(found)
        time.sleep(0.2)


def child(act, *arguments):
    pid = os.fork()
    if not pid:
        try:
            act(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def codes(pids):
    return {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}


readers = [child(reader) for _ in range(2)]
written = codes([child(writer, number) for number in range(int(sys.argv[4]))])
(outputs.parent / "over").touch()
assert written == codes(readers) == {0}
"""


@pytest.mark.slow
def test_many_processes_write_many_records_each_while_others_read(tmp_path):
    outputs, writers, each = tmp_path / "outputs", 16, 60
    outputs.mkdir()
    numbers = [str(each), str(writers)]
    command = [sys.executable, "-c", CROWD, str(outputs), json.dumps(CONFIG), *numbers]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    time.sleep(2.1)  # until the last files are older than a clock's tick
    for _ in range(2):  # as they are, and from the index
        found = load_results((), outputs)
        assert sorted(result.seed for result in found) == list(range(writers * each))
        assert all(result.scores[0].value == result.seed / 7 for result in found)
        assert {result.status for result in found} == {"finished"}
    assert len(entries(outputs)) == writers * each
    shutil.rmtree(outputs)
