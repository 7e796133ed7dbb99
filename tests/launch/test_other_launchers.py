"""Hydra's launchers for clusters, with genbench's worker; and wandb's agent."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from fixtures.launching import runs
from fixtures.loggers import records
from fixtures.places import ROOT
from fixtures.wandb_server import WandbServer, serving
from genbench.launch import task
from genbench.runs.config import read_config
from genbench.runs.status import read_status
from genbench.training.loggers import build, finish

WORKER = """
import sys
from pathlib import Path
from genbench.runs.result import Result, write_result
from genbench.runs.status import Status, write_status
from genbench.runs.config import read_config
from genbench.runs.score import Score
run = Path(sys.argv[1])
config = read_config(run)
if config["seed"] == 1:
    write_status(run, Status("failed", "seed 1 is unlucky"))
    sys.exit(1)
scores = [Score("fd", config["seed"], "", False, {"split": config["evaluation"]["split"]})]
write_result(run, Result(run.name, "s", [], "finished", "vae", "digits", 0, "f", {}, {}, {}, scores))
write_status(run, Status("finished"))
"""
SWEEP = """
import sys
from genbench.launch import task
sys.exit(task.train(["-m", *sys.argv[1:]], worker="stub_worker"))
"""


@pytest.fixture
def sweep(room):
    """Sweep in a process of its own, as users do: (exit code, what was printed)."""
    (room / "stub_worker.py").write_text(WORKER)
    (room / "sweep.py").write_text(SWEEP)
    path = os.pathsep.join([str(ROOT), str(room), os.environ.get("PYTHONPATH", "")])

    def run(*argv):
        done = subprocess.run(
            [sys.executable, "sweep.py", *argv], capture_output=True, text=True, timeout=300,
            env={**os.environ, "PYTHONPATH": path, "RAY_DEDUP_LOGS": "0"},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "package"),
    [("submitit_local", "submitit"), ("joblib", "joblib"), ("ray", "ray")],
)
def test_runs_of_another_launcher_land_in_one_table(launcher, package, sweep):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    code, printed = sweep(f"hydra/launcher={launcher}", "seed=0,1,2", "study=s")
    assert code == 1, printed  # the unlucky one, which stopped no other
    assert "2 of 3 runs finished" in printed
    assert sorted((read_config(r)["seed"], read_status(r).status) for r in runs()) == [
        (0, "finished"), (1, "failed"), (2, "finished"),
    ]  # fmt: skip
    code, printed = sweep(f"hydra/launcher={launcher}", "seed=0,2", "study=s")
    assert code == 0, printed
    assert printed.count("there already") == 2
    assert len(runs()) == 3


@pytest.mark.slow
def test_a_search_runs_its_trials_through_another_launcher(sweep):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    argv = ("hydra/sweeper=search", "hydra.sweeper.sampler=grid", "hydra.sweeper.batch=2")
    code, printed = sweep("hydra/launcher=submitit_local", *argv, "seed=0,1,2", "study=s")
    assert code == 0, printed
    assert "2 trials complete, 0 pruned, 1 failed" in printed
    assert "fd=0" in printed


@pytest.mark.slow
def test_slurm_gets_one_array_and_keeps_its_files_with_the_runs(room, monkeypatch, capfd):
    """A script that stands for `sbatch` keeps what it was given."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (room / "bin").mkdir()
    for name, text in {
        "sbatch": f'cp "$1" {room}/given.sh; echo Submitted batch job 7',
        "srun": "true",
        "sacct": "echo 'JobID|State'; for i in 0 1 2; do echo \"7_$i|FAILED\"; done",
    }.items():
        (room / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (room / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{room / 'bin'}:{os.environ['PATH']}")
    argv = ("hydra/launcher=slurm", "seed=0,1,2", "hydra.launcher.partition=gpu")
    with pytest.raises(Exception, match="7_0"):  # these jobs never were
        task.train(["-m", *argv], worker="stub_worker")
    script = (room / "given.sh").read_text()
    assert "#SBATCH --array=0-2%3" in script
    assert "#SBATCH --partition=gpu" in script
    assert f"{room}/outputs/.submitit" in script


# --- wandb's agent ------------------------------------------------------------------------------


def commanded(command, proposal):
    """What wandb's agent runs for a proposal: its own code fills in the command of a sweep."""
    given = create_sweep_command_args({"args": proposal})
    assert [part for part in command if "${" in part] == ["${args_no_hyphens}"]
    return [
        word for part in command for word in (given["args_no_hyphens"] if "${" in part else [part])
    ]


def test_the_wandb_sweep_is_one_that_genbench_can_run(room, capfd):
    sweep = yaml.safe_load((ROOT / "docs" / "wandb-sweep.yaml").read_text())
    options = {k: p.get("values", [p.get("value")]) for k, p in sweep["parameters"].items()}
    most = max(map(len, options.values()))
    for index in range(most):  # every value of every parameter, in as few proposals as do
        proposal = {k: {"value": values[index % len(values)]} for k, values in options.items()}
        words = commanded(sweep["command"], proposal)
        assert words[:2] == ["genbench", "train"]
        assert task.train([*words[2:], "--cfg", "job", "--resolve"]) == 0
        composed = yaml.safe_load(capfd.readouterr().out)
        assert "wandb" in composed["logger"]
        asked = {name: entry["value"] for name, entry in proposal.items()}
        assert composed["choices"]["model"] == asked["model"]
        assert composed["arena"]["latent_dim"] == asked["arena.latent_dim"]
        assert (composed["seed"], composed["study"]) == (asked["seed"], asked["study"])
    extractor = sweep["metric"]["name"].removeprefix("final/fd_")
    assert task.train([*words[2:], f"extractor={extractor}", "--cfg", "job"]) == 0
    assert yaml.safe_load(capfd.readouterr().out)["extractor"] == composed["extractor"]


class SweepServer(WandbServer):
    """What wandb's agent asks of a server: whose key it is, the sweep, a name, and what to do."""

    sweep: Mapping[str, Any]
    orders: list[dict[str, Any]]

    def SweepWithRuns(self, given):
        about = {"id": "1", "name": given["sweep"], "state": "RUNNING", "runs": {"edges": []}}
        return {"project": {"sweep": about | {"config": yaml.safe_dump(dict(self.sweep))}}}

    def CreateAgent(self, _):
        return {"createAgent": {"agent": {"id": "agent"}}}

    def Heartbeat(self, given):
        at_work = json.loads(given["runState"])
        orders = [self.orders.pop(0)] if self.orders and not at_work else []
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(orders)}}


@pytest.mark.slow
def test_wandbs_agent_drives_the_shipped_sweep_and_its_run_keeps_the_agents_id(room, monkeypatch):
    """wandb's own program, as users start it; only the server is not wandb's."""
    sweep = yaml.safe_load((ROOT / "docs" / "wandb-sweep.yaml").read_text())
    proposal = {
        k: p.get("value", p.get("values", [None])[0]) for k, p in sweep["parameters"].items()
    }
    small = {"budget.images": 128, "evaluation.num_samples": 64}
    args = {name: {"value": value} for name, value in (proposal | small).items()}
    run_it = {"type": "run", "run_id": "run7", "program": sweep["program"], "args": args}
    orders = [run_it, {"type": "exit"}]
    programs = Path(sys.executable).parent  # of this environment, where genbench is
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    handler = type("Handler", (SweepServer,), {"sweep": sweep, "orders": orders})
    with serving(handler) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        agent = subprocess.run(
            ["wandb", "agent", "me/genbench/sweep7"], capture_output=True, text=True, timeout=300
        )
    assert agent.returncode == 0, agent.stderr
    assert orders == [], agent.stderr

    (run,) = runs()
    assert read_status(run).status == "finished"
    config = read_config(run)
    assert config["choices"]["model"] == proposal["model"]
    assert config["arena"]["latent_dim"] == proposal["arena.latent_dim"]
    assert config["study"] == "wandb-sweep"
    environment = json.loads((run / "environment.json").read_text())
    assert environment["wandb"] == {"WANDB_RUN_ID": "run7", "WANDB_SWEEP_ID": "sweep7"}
    assert f"model={proposal['model']}" in environment["command"]

    sent = records(run)  # in the run's own folder, where `genbench wandb sync` looks
    about = next(r.run for r in sent if r.WhichOneof("record_type") == "run")
    columns = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert (about.run_id, about.sweep_id, about.project) == ("run7", "sweep7", "genbench")
    assert (columns["model"], columns["dataset"]) == (proposal["model"], "digits")
    assert columns["cfg"]["budget"]["images"] == 128
    exits = [r.exit.exit_code for r in sent if r.WhichOneof("record_type") == "exit"]
    assert exits == [0]
    summaries = [r.summary.update for r in sent if r.WhichOneof("record_type") == "summary"]
    told_last = {(i.key or "/".join(i.nested_key)) for update in summaries for i in update}
    assert sweep["metric"]["name"] in told_last  # what the sweep is judged by

    later = build(config["logger"], run, config, "f")  # resumed by hand, without the agent
    finish(later, [], "finished")
    pieces = [piece.name for piece in run.glob("wandb/offline-run-*")]
    assert len(pieces) == 2
    assert all(piece.endswith("-run7") for piece in pieces)
