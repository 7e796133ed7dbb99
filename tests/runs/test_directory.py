"""Run directories: made once, found by what people type, read whatever state they are in."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genbench.errors import GenbenchError, UserMistake
from genbench.runs.config import read_config, write_config
from genbench.runs.directory import find_run, iter_runs, new_run_directory
from genbench.runs.files import write_json
from genbench.runs.records import find_runs
from genbench.runs.status import Status, read_status, write_status


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


def make(outputs, name, model="vae", status="finished", **config):
    run = new_run_directory(outputs, name)
    write_config(run, {"choices": {"model": model, "dataset": "digits"}, **config})
    write_status(run, Status(status, heartbeat=time.time()))
    return run


def test_a_made_up_id_sorts_by_time_and_never_repeats(outputs):
    names = [new_run_directory(outputs).name for _ in range(5)]
    assert len(set(names)) == 5
    assert {name[:15] for name in names} <= {
        time.strftime("%Y%m%d-%H%M%S", time.gmtime(time.time() - back)) for back in range(10)
    }


def test_made_up_ids_that_meet_are_made_up_anew(outputs, monkeypatch):
    chances = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr("genbench.runs.directory.secrets.token_hex", lambda _: next(chances))
    monkeypatch.setattr("genbench.runs.directory.time.strftime", lambda *_: "20260101-000000")
    names = [new_run_directory(outputs).name for _ in range(2)]
    assert names == ["20260101-000000-aaaaaa", "20260101-000000-bbbbbb"]


def test_an_existing_run_directory_is_refused_with_its_remedy(outputs):
    new_run_directory(outputs, "first")
    with pytest.raises(UserMistake, match="genbench resume first"):
        new_run_directory(outputs, "first")


@pytest.mark.parametrize("name", ["a/b", "../a", ".hidden", "-x", "latest", ""])
def test_a_run_id_must_be_a_plain_name(outputs, name):
    with pytest.raises(UserMistake, match="is not a name"):
        new_run_directory(outputs, name)
    assert not outputs.exists()


def test_outputs_that_are_a_file_are_refused(outputs):
    outputs.write_text("")
    with pytest.raises(UserMistake, match="is a file"):
        new_run_directory(outputs)


def test_outputs_that_cannot_be_made_are_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserMistake, match=r"not a directory; choose another place with paths"):
        new_run_directory(tmp_path / "file" / "outputs")


def test_a_run_is_found_by_id_prefix_path_and_latest(outputs):
    old, new = make(outputs, "20260101-aa"), make(outputs, "20260202-bb")
    os.utime(old / "config.yaml", (1, 1))
    assert find_run("20260101-aa", outputs) == old
    assert find_run("20260202", outputs) == new
    assert find_run(str(old), outputs) == old
    assert find_run("latest", outputs) == new


def test_latest_passes_over_a_run_that_is_being_deleted(outputs, monkeypatch):
    run = make(outputs, "20260101-aa")
    listed = [run, outputs / "20260202-deleted"]
    monkeypatch.setattr("genbench.runs.directory.iter_runs", lambda _: iter(listed))
    assert find_run("latest", outputs) == run


def test_an_exact_id_wins_over_a_longer_one(outputs):
    make(outputs, "first-2")
    first = make(outputs, "first")
    assert find_run("first", outputs) == first


def test_a_prefix_of_several_runs_names_them(outputs):
    make(outputs, "2026-a"), make(outputs, "2026-b")
    with pytest.raises(UserMistake, match="is the beginning of 2 ids: 2026-a, 2026-b"):
        find_run("2026", outputs)


def test_a_wrong_reference_names_near_runs(outputs):
    make(outputs, "celeba-gan"), make(outputs, "digits-vae")
    with pytest.raises(UserMistake, match="most similar ids are celeba-gan"):
        find_run("celeba-gna", outputs)


def test_without_runs_the_sentence_says_how_to_start_one(outputs):
    with pytest.raises(UserMistake, match="genbench train"):
        find_run("latest", outputs)


def test_only_directories_with_a_config_are_runs(outputs):
    run = make(outputs, "run")
    (outputs / "demo").mkdir()
    (outputs / "notes.txt").write_text("")
    assert list(iter_runs(outputs)) == [run]
    assert list(iter_runs(outputs / "absent")) == []


def test_selections_read_choices_status_and_settings(outputs):
    vae = make(outputs, "a", seed=0, model="vae", budget={"images": 64}, tags=["x", "y"])
    gan = make(outputs, "b", seed=1, model="gan", status="failed", study=None)
    assert find_runs([], outputs) == [vae, gan]
    assert find_runs(["model=gan"], outputs) == [gan]
    assert find_runs(["model=gan,vae", "status=failed"], outputs) == [gan]
    assert find_runs(["budget.images=64"], outputs) == [vae]
    assert find_runs(["tags=y"], outputs) == [vae]
    assert find_runs(["study=null"], outputs) == [gan]
    assert find_runs(["a", "b", "seed=1"], outputs) == [gan]


def test_numbers_are_selected_as_numbers(outputs):
    low = make(outputs, "a", rate=1e-3, budget={"images": "500k"}, study="1000", flip=True, seed=1)
    high = make(outputs, "b", rate=1e-5, budget={"images": 2_000_000}, study="1e3", seed=10)
    for text in ("rate=1e-3", "rate=0.001", "rate=.0010", "budget.images=500_000", "seed=1.0"):
        assert find_runs([text], outputs) == [low], text
    assert find_runs(["rate=1e-5"], outputs) == find_runs(["budget.images=2M"], outputs) == [high]
    assert find_runs(["study=1000"], outputs) == [low]  # a name is not a number
    assert find_runs(["flip=1"], outputs) == []
    assert find_runs(["rate=low"], outputs) == find_runs(["budget.images=many"], outputs) == []


def test_a_damaged_config_fits_no_selection_and_is_named(outputs, capsys):
    vae = make(outputs, "a")
    (make(outputs, "b") / "config.yaml").write_text("{")
    assert find_runs(["model=vae"], outputs) == [vae]
    assert f"left out: {outputs / 'b' / 'config.yaml'} cannot be read" in capsys.readouterr().err


def test_a_status_reads_back_as_written(outputs):
    run = make(outputs, "run")
    status = Status("running", None, time.time(), 1, "host", 2.0, 64, 640, 12.5)
    write_status(run, status)
    assert read_status(run) == status


def test_a_run_with_a_stale_heartbeat_is_interrupted(outputs):
    run = make(outputs, "run")
    write_status(run, Status("running", heartbeat=time.time() - 61, pid=1, host="elsewhere"))
    assert read_status(run).status == "interrupted"


def test_a_run_with_a_stale_heartbeat_and_a_living_worker_is_running(outputs):
    run = make(outputs, "run")
    command = [sys.executable, "-c", "import time; time.sleep(60)", str(run)]
    with subprocess.Popen(command) as worker:
        host = socket.gethostname()
        write_status(run, Status("running", heartbeat=1.0, pid=worker.pid, host=host))
        assert read_status(run).status == "running"
        worker.kill()
    assert read_status(run).status == "interrupted"


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the system does not say")
def test_a_process_with_a_reused_pid_is_not_the_worker(outputs):
    run = make(outputs, "20200101-000000-abcdef")
    write_status(run, Status("running", heartbeat=1.0, pid=os.getpid(), host=socket.gethostname()))
    assert read_status(run).status == "interrupted"


def test_a_run_that_has_just_begun_has_no_status_file_and_is_running(outputs):
    run = make(outputs, "run")
    (run / "status.json").unlink()
    assert read_status(run).status == "running"
    os.utime(run / "config.yaml", (1, 1))
    assert read_status(run).status == "interrupted"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"finished"'])
def test_a_damaged_status_reads_as_failed(outputs, content):
    run = make(outputs, "run")
    (run / "status.json").write_text(content)
    status = read_status(run)
    assert status.status == "failed"
    assert "status.json cannot be read" in status.reason


def test_a_status_of_a_later_version_can_be_read(outputs):
    run = make(outputs, "run")
    write_json(run / "status.json", {"status": "finished", "something": "new"})
    assert read_status(run) == Status("finished")


def test_a_damaged_config_is_a_sentence(outputs):
    run = make(outputs, "run")
    for content in ("a: [", "- 1", "\x00"):
        (run / "config.yaml").write_text(content)
        with pytest.raises(GenbenchError, match="cannot be read"):
            read_config(run)
    with pytest.raises(UserMistake, match="is not a run"):
        read_config(outputs)


def test_config_values_keep_their_types(outputs):
    content = {"a": 1e-5, "b": "500k", "c": None, "d": True, "e": [0.0, 0.99], "f": "no", "g": "ä"}
    run = new_run_directory(outputs)
    write_config(run, content)
    assert read_config(run) == content


def test_json_is_replaced_whole_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "status.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]
