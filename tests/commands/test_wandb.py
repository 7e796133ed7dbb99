"""`genbench wandb sync` and `workspace`, against servers of the tests' own."""

import json
import time
from contextlib import nullcontext

import pytest

from fixtures.comparison import fd
from fixtures.loggers import CONFIG, WANDB
from fixtures.wandb_server import WandbServer, serving
from genbench.cli import main
from genbench.commands import wandb as wandb_module
from genbench.errors import Notice, UserMistake
from genbench.runs.config import write_config
from genbench.runs.directory import new_run_directory
from genbench.runs.status import Status, write_status
from genbench.training import loggers
from genbench.training.loggers import wandb


@pytest.fixture
def offline(tmp_path):
    """Write a run with pieces of wandb's offline folders; `sent` of them are marked as wandb does."""

    def offline(pieces: int, sent: int = 0, status: str = "finished"):
        run = new_run_directory(tmp_path, None)
        write_config(run, {"seed": 0, "choices": {"model": "vae", "dataset": "digits"}})
        write_status(run, Status(status, heartbeat=4e9, pid=1))
        for number in range(pieces):
            piece = run / "wandb" / f"offline-run-2026110{number}_000000-{run.name}"
            piece.mkdir(parents=True)
            (piece / f"run-{run.name}.wandb").write_bytes(b"x")
            if number < sent:
                (piece / f"run-{run.name}.wandb.synced").touch()
        return run

    return offline


def test_a_dry_run_lists_unsent_runs_and_sends_nothing(tmp_path, offline, capsys):
    first, second = offline(2), offline(2, sent=1)
    offline(1, sent=1)
    offline(0)
    going = offline(1, status="running")
    assert wandb_module.sync(["--dry-run", "--outputs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"{first.name}: 2 pieces" in printed
    assert f"{second.name}: 1 piece\n" in printed
    assert f"{going.name} is still running" in printed
    assert "2 of 5 runs are to be sent to wandb" in printed


def test_with_nothing_to_send_no_login_is_needed(tmp_path, offline, no_login, capsys):
    offline(1, sent=1)
    assert wandb_module.sync(["--outputs", str(tmp_path)]) == 0
    assert "nothing is left to send to wandb (runs looked at: 1)" in capsys.readouterr().out


def test_without_a_login_nothing_is_sent(tmp_path, offline, no_login):
    offline(1)
    with pytest.raises(UserMistake, match=r"nobody is logged in to wandb.*nothing was sent"):
        wandb_module.sync(["--outputs", str(tmp_path)])


@pytest.mark.slow
def test_an_unreachable_server_and_offline_mode_have_sentences_of_their_own(
    tmp_path, offline, no_login, monkeypatch, capsys
):
    offline(1)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    argv = ["wandb", "sync", "--outputs", str(tmp_path)]
    assert main(argv) == 2
    assert capsys.readouterr().err == (
        "genbench: WANDB_MODE keeps wandb offline: unset it; nothing was sent\n"
    )
    with serving(Refusing) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.delenv("WANDB_MODE")
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"genbench: {address} does not answer: ")
    assert said.count("\n") == 1


class Refusing(WandbServer):
    """A server that answers every key with 401."""

    def do_POST(self):
        body = json.dumps({"errors": [{"message": "permission denied"}]}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST


@pytest.mark.slow
def test_a_run_that_the_server_refuses_stays_unsent(
    tmp_path, offline, no_login, monkeypatch, capsys
):
    """With wandb's real command, against a server that refuses the key."""
    run = offline(1)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_MODE")
    with serving(Refusing) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert wandb_module.sync(["--outputs", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert f"genbench: {run.name}: " in said.err
    assert "0 of 1 runs sent, 1 not sent yet" in said.out
    assert wandb_module.unsent(run)


class Taking(WandbServer):
    """A server that accepts a run, and its files if `files` is true."""

    files = True

    def RunResumeStatus(self, _):
        return {"model": None}

    def UpsertBucket(self, given):
        project = {"id": "1", "name": "genbench", "entity": {"id": "1", "name": "me"}}
        bucket = {"id": "1", "name": given["name"], "displayName": "", "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def CreateRunFiles(self, given):
        if not self.files:
            time.sleep(60)  # longer than anybody waits for
        made = [{"name": name, "uploadUrl": self.address} for name in given["files"]]
        return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": made}}

    @property
    def address(self):
        return f"http://{self.headers['Host']}/file"

    do_PUT = WandbServer.do_POST


@pytest.mark.slow
@pytest.mark.parametrize("files", [True, False])
def test_only_an_upload_that_did_not_end_is_unsent(tmp_path, no_login, monkeypatch, files):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("GENBENCH_LOGGER", "online")
    monkeypatch.delenv("WANDB_MODE")
    if not files:
        monkeypatch.setattr(wandb, "FINISH_SECONDS", 2.0)
    with serving(type("Handler", (Taking,), {"files": files})) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        (board,) = loggers.build({"wandb": WANDB}, tmp_path, CONFIG, "f")[1:]
        board.log_metrics({"a": 1.0}, step=64)
        told = nullcontext() if files else pytest.warns(Notice, match=f"sync {tmp_path}` sends the")
        with told:
            board.finalize("finished")
    pieces = [piece for piece in tmp_path.glob("wandb/run-*") if any(piece.glob("*.wandb"))]
    assert len(pieces) == 1
    assert wandb_module.unsent(tmp_path) == ([] if files else pieces)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pydantic", "ignore:Pydantic V1")  # theirs
def test_a_view_of_a_study_can_be_built_without_a_server(tmp_path, finished, no_login, capsys):
    """Read back by wandb's own library, which checks every field."""
    for model in ("vae", "gan"):
        run = finished([fd(4.0)], model=model, study="first")
        (run / "history.csv").write_text("images,selection/fd,loss/one\n64,3.0,1.0\n")
    out = tmp_path / "view.json"
    argv = ["study=first", "--outputs", str(tmp_path), "--entity", "me", "--out", str(out)]
    assert wandb_module.save_view(argv) == 0
    view = json.loads(out.read_text())
    internal = pytest.importorskip("wandb_workspaces.workspaces.internal")
    assert internal.View.model_validate(view).entity == "me"
    bank = view["spec"]["section"]["panelBankConfig"]["sections"]
    panels = {section["name"]: section["panels"] for section in bank}
    assert [p["config"]["metrics"] for p in panels["Scores"]] == [["final/fd_lenet"]]
    (curve,) = panels["Scores over images"]
    assert (curve["config"]["xAxis"], curve["config"]["metrics"]) == ("images", ["selection/fd"])
    assert [p["config"]["metrics"] for p in panels["Losses"]] == [["loss/one"]]
    shown = [p["config"]["mediaKeys"] for p in panels["Pictures"]]
    assert ["samples"] in shown
    (comparer,) = panels["What the runs differ in"]
    assert comparer["config"]["diffOnly"] == "split"
    (runs,) = view["spec"]["section"]["runSets"]
    assert '"value": "first"' in json.dumps(runs["filters"])
    assert runs["grouping"] == [{"section": "config", "name": "model.value"}]
    with pytest.raises(UserMistake, match="nobody is logged in to wandb"):
        wandb_module.save_view(["study=first", "--outputs", str(tmp_path), "--entity", "me"])


def test_a_view_is_of_one_study(tmp_path, finished):
    finished([fd(4.0)], study="first")
    finished([fd(4.0)], seed=1)
    with pytest.raises(UserMistake, match="these runs are of first, no study: give study=NAME"):
        wandb_module.save_view(["model=vae", "--outputs", str(tmp_path)])
    with pytest.raises(
        UserMistake, match="there are no runs in .* that fit study=other: start some with"
    ):
        wandb_module.save_view(["study=other", "--outputs", str(tmp_path)])


def test_a_missing_subcommand_is_a_mistake(room, capsys):
    assert main(["wandb", "snyc"]) == 2
    assert "genbench wandb sync" in capsys.readouterr().err
