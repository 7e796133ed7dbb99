"""`genbench runs tag` and `genbench runs remove`."""

import time

import pytest

from genbench import cli
from genbench.commands import runs
from genbench.errors import UserMistake
from genbench.runs.config import write_config
from genbench.runs.records import load_results
from genbench.runs.status import Status, write_status

CONFIG = {
    "tags": ["first"],
    "choices": {"model": "vae", "dataset": "digits"},
    "model": {},
    "dataset": {"name": "digits"},
    "budget": {"images": 64},
    "trainer": {"precision": "32-true"},
}


@pytest.fixture
def outputs(room):
    """Four runs: 0 and 1 failed, 2 interrupted, 3 running."""
    for number, status in enumerate(("failed", "failed", "interrupted", "running")):
        run = room / "outputs" / f"run-{number}"
        run.mkdir(parents=True)
        write_config(run, CONFIG | {"seed": number})
        write_status(run, Status(status, heartbeat=time.time()))
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "last.ckpt").write_text("x")
    (room / "outputs" / "notes").mkdir()
    return room / "outputs"


def names(outputs):
    return sorted(path.name for path in outputs.iterdir())


def tags(outputs):
    return {result.run_id[-1]: list(result.tags) for result in load_results((), outputs)}


def test_tags_are_added_and_taken_away(outputs, capsys):
    assert cli.main(["runs", "tag", "status=failed", "seed=0,2", "+good", "+good", "-first"]) == 0
    assert "changed the tags of 1 run, 0 left as is" in capsys.readouterr().out
    assert cli.main(["runs", "tag", "run-2", "run-0", "+good"]) == 0
    assert "changed the tags of 1 run, 1 left as is" in capsys.readouterr().out
    assert tags(outputs) == {"0": ["good"], "1": ["first"], "2": ["first", "good"], "3": ["first"]}
    assert len(load_results(["tags=good"], outputs)) == 2
    assert cli.main(["runs", "tags=good", "status=failed", "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("run-") == 2  # its name and its path


@pytest.mark.parametrize(
    "words", [["run-0"], ["run-0", "+"], ["run-0", "+a,b"], ["+a"], ["x=1", "+a"]]
)
def test_a_wrong_tag_command_changes_nothing_and_says_why(outputs, words):
    with pytest.raises(UserMistake):
        runs.main(["tag", *words])
    assert set(map(tuple, tags(outputs).values())) == {("first",)}


def test_a_dry_run_lists_and_deletes_nothing(outputs, capsys):
    before = names(outputs)
    assert cli.main(["runs", "remove", "model=vae", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert told.out.count("would delete") == 3
    assert "run-3 is running and stays" in told.err
    assert names(outputs) == before


def test_without_a_terminal_nothing_is_deleted_unless_yes_is_given(outputs, capsys):
    before = names(outputs)
    assert cli.main(["runs", "remove", "status=failed"]) == 2
    assert "would delete 2 runs, and there is no terminal to ask on: add --yes" in (
        capsys.readouterr().err
    )
    assert names(outputs) == before
    assert cli.main(["runs", "remove", "status=failed,running", "--yes"]) == 0
    assert "deleted 2 runs" in capsys.readouterr().out
    assert names(outputs) == ["notes", "run-2", "run-3"]


@pytest.mark.parametrize(("answer", "left"), [("y", 1), ("no", 3), ("", 3)])
def test_on_a_terminal_the_user_is_asked(outputs, monkeypatch, answer, left):
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    assert runs.main(["remove", "status=failed,interrupted"]) == 0
    assert asked == ["Delete 3 runs with checkpoints and samples? [y/N] "]
    assert len([name for name in names(outputs) if name.startswith("run-")]) == left + (left == 3)


def test_running_runs_and_other_folders_are_not_deleted(outputs, capsys):
    with pytest.raises(UserMistake, match="which runs"):
        runs.main(["remove", "--yes"])
    with pytest.raises(UserMistake, match="nothing to delete"):
        runs.main(["remove", "run-3", "--yes"])
    with pytest.raises(UserMistake, match="there is no run notes"):
        runs.main(["remove", "notes", "--yes"])
    (outputs / "link").symlink_to(outputs / "run-0")
    assert runs.main(["remove", str(outputs / "link"), "--yes"]) == 1
    assert "is not a run directory" in capsys.readouterr().err
    assert names(outputs) == ["link", "notes", "run-0", "run-1", "run-2", "run-3"]
