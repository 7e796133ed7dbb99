"""`genbench resume` continues a run in its directory."""

import time
from pathlib import Path

import pytest

from fixtures.launching import seen
from genbench.commands import resume
from genbench.errors import UserMistake
from genbench.runs.status import Status, read_status, write_status


def test_resume_starts_the_worker_again_on_the_directory(train):
    train("run_id=run")
    run = Path("outputs/run")
    write_status(run, Status("interrupted"))
    assert resume.main(["run"], worker="stub_worker") == 0
    assert seen(run)["arguments"] == ["--resume"]
    assert seen(run)["environment"]["GENBENCH_COMMAND"] == "genbench resume run"


@pytest.mark.parametrize("status", ["finished", "running"])
def test_a_run_that_needs_no_resuming_is_refused(train, status):
    train("run_id=run")
    write_status(Path("outputs/run"), Status(status, heartbeat=time.time()))
    with pytest.raises(UserMistake, match=f"run is {status}"):
        resume.main(["latest"], worker="stub_worker")


def test_a_resumed_run_that_is_refused_keeps_its_directory(train, room):
    train("run_id=run")
    write_status(room / "outputs/run", Status("interrupted", "as before"))
    (room / "stub_worker.py").write_text("raise SystemExit(2)")
    assert resume.main(["run"], worker="stub_worker") == 2
    assert read_status(room / "outputs/run").reason == "as before"
    write_status(room / "outputs/run", Status("running"))
    assert resume.main(["run"], worker="stub_worker") == 2
    assert read_status(room / "outputs/run").status == "interrupted"
