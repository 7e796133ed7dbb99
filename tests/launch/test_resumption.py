"""Runs are resumed: with another trainer, and in a job that SLURM or torchrun has restarted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.callbacks import stop, stop_by_parent
from fixtures.forks import fork_ranks, genbench
from fixtures.launching import FINISHES, runs, seen
from fixtures.loggers import records
from fixtures.places import environment
from fixtures.training import SMOKE, go, make, scores
from genbench import train as train_module
from genbench.commands import resume as resume_module
from genbench.errors import UserMistake
from genbench.launch import resumption
from genbench.runs.config import read_config, write_config
from genbench.runs.method import fingerprint
from genbench.runs.result import read_result
from genbench.runs.status import Status, read_status, write_status

# --- another trainer ----------------------------------------------------------------------------


@pytest.fixture
def interrupted(train, room):
    """A run that was interrupted, and a worker that finishes it."""
    train("model=gan", "run_id=x")
    write_status(Path("outputs/x"), Status("interrupted"))
    return Path("outputs/x")


def resume(*argv):
    return resume_module.main(["x", *argv], worker="stub_worker")


@pytest.mark.slow
def test_a_run_resumes_with_another_trainer_and_keeps_it(interrupted):
    before = read_config(interrupted)
    assert resume("trainer.checkpoint_minutes=3", "dataset.workers=7") == 0
    after = read_config(interrupted)
    assert (after["trainer"]["checkpoint_minutes"], after["dataset"]["workers"]) == (3, 7)
    assert fingerprint(after) == fingerprint(before)
    write_status(interrupted, Status("interrupted"))
    assert resume("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu") == 0
    last = read_config(interrupted)
    assert (last["trainer"]["devices"], last["choices"]["trainer"]) == (2, "ddp")
    assert last["trainer"]["checkpoint_minutes"] == before["trainer"]["checkpoint_minutes"]
    same = ("trainer", "choices", "dataset")
    assert {k: v for k, v in last.items() if k not in same} == {
        k: v for k, v in before.items() if k not in same
    }


REFUSED = {
    "model.r1_gamma=2": "changes the method, which a resumed run must keep: train a new run",
    "budget.images=2M": "genbench train ... budget.images=2M",
    "seed=3": "seed=3 changes the method",
    "dataset=mnist": "dataset=mnist changes the method",
    "evaluation=full": "score it again with `genbench evaluate`",
    "study=other": "study=other cannot change",
    "trainer.devcies=2": "did you mean trainer.devices?",
    "trianer.devices=2": "did you mean trainer.devices?",
    "trainer=gpus": "there is no trainer gpus: did you mean trainer=gpu?",
    "trainer.progress=maybe": "is not true or false",
}


@pytest.mark.slow
def test_other_settings_are_refused_and_the_config_stays(interrupted):
    before = (interrupted / "config.yaml").read_bytes()
    for override, sentence in REFUSED.items():
        with pytest.raises(UserMistake) as refused:
            resume(override)
        assert sentence in str(refused.value)
    assert (interrupted / "config.yaml").read_bytes() == before


@pytest.mark.filterwarnings("default::genbench.errors.Notice")  # of a machine with fewer cores
@pytest.mark.slow
def test_a_trainer_that_the_worker_refuses_is_not_kept(interrupted, room):
    before = read_config(interrupted)
    (room / "stub_worker.py").write_text("import sys; sys.exit(2)")
    assert resume("trainer.devices=3") == 2
    assert read_config(interrupted) == before


@pytest.mark.slow
def test_the_record_shows_every_trainer_and_a_second_precision_is_another_method(
    tmp_path,
    cache,
    capsys,
):
    whole = make(tmp_path, cache, "model=gan", run_id="whole")
    parts = make(tmp_path, cache, "model=gan", "trainer.steps_per_batch=1", stop(192), run_id="x")
    assert go(whole) == 0
    assert go(parts) == 75
    # as on a machine where `auto` is another precision
    config = resumption.with_overrides(read_config(parts), ["trainer.precision=bf16-mixed"])
    write_config(parts, config | {"callbacks": {}})
    assert go(parts, "--resume") == 0
    one, two = read_result(whole), read_result(parts)
    trainers = two.environment["trainers"]
    assert [(t["images"], t["precision"]) for t in trainers] == [
        (0, "32-true"),
        (192, "bf16-mixed"),
    ]
    assert [t["images"] for t in one.environment["trainers"]] == [0]
    assert two.config["trainer"]["precision"] == "32-true, then bf16-mixed"
    assert one.fingerprint != two.fingerprint
    assert one.environment["malloc"]["mmap_threshold"] == 1 << 30
    assert one.environment["threads"]["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]


@pytest.mark.slow
def test_a_precision_that_only_auto_changed_is_refused(tmp_path, cache, capsys):
    run = make(tmp_path, cache, "model=gan", "trainer.precision=bf16-mixed", stop(192))
    assert go(run) == 75
    config = read_config(run)
    write_config(run, config | {"trainer": config["trainer"] | {"precision": "auto"}})
    assert go(run, "--resume") == 2
    assert "give trainer.precision=bf16-mixed to stay with it" in capsys.readouterr().err
    assert read_status(run).status == "interrupted"


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_stopped_while_scoring_is_only_scored_when_resumed(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    whole = make(tmp_path, cache, "model=vae", run_id="whole")
    assert go(whole) == 0
    target = "evaluation._target_=fixtures.evaluation.StopsWhileScoring"
    parts = make(tmp_path, cache, "model=vae", target, "logger=wandb", run_id="parts")
    assert go(parts) == 75
    assert read_status(parts).status == "interrupted"
    (ending,) = [r.exit for r in records(parts) if r.WhichOneof("record_type") == "exit"]
    assert ending.exit_code == 1  # the dashboard was told, and does not show it as running
    final = (parts / "checkpoints" / "final.ckpt").stat().st_mtime_ns
    assert not (parts / "result.json").exists()
    config = read_config(parts)
    write_config(parts, config | {"logger": {}})
    assert go(parts, "--resume") == 0
    assert (parts / "checkpoints" / "final.ckpt").stat().st_mtime_ns == final
    assert scores(parts) == scores(whole)


SLEEPS = """
import sys, time
from pathlib import Path
(Path(sys.argv[1]) / "awake").touch()
time.sleep(60)
"""


@pytest.mark.slow
def test_stopping_an_evaluation_prints_nothing_about_checkpoints(train, room):
    train("run_id=x")
    (room / "stub_worker.py").write_text(SLEEPS)
    code = "import sys; from genbench.commands import evaluate; "
    code += "sys.exit(evaluate.main(['x'], worker='stub_worker'))"
    path = os.pathsep.join([str(room), environment()["PYTHONPATH"]])
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (room / "outputs" / "x" / "awake").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(signal.SIGINT)
    _, error = parent.communicate(timeout=30)
    assert parent.returncode == 75
    assert "genbench: stopping\n" in error
    assert "checkpoint" not in error


# --- started again ------------------------------------------------------------------------------

REQUEUED = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}


@pytest.mark.slow
def test_a_requeued_job_resumes_its_run(train, monkeypatch, capfd):
    command = ["model=gan", "run_id=x"]
    interrupting = FINISHES.replace('"finished"', '"interrupted"') + "sys.exit(75)"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert train(*command, source=interrupting) == 75
    assert train(*command) == 2  # not requeued: somebody took the same name
    for name, value in REQUEUED.items():
        monkeypatch.setenv(name, value)
    assert train(*command, "trainer.devices=2") == 0
    (run,) = runs()
    assert seen(run)["arguments"] == ["--resume"]
    assert read_config(run)["trainer"]["devices"] == 2
    (run / "seen.json").unlink()
    assert train(*command) == 0  # finished: nothing is left to do
    assert not (run / "seen.json").exists()
    write_status(run, Status("interrupted"))
    assert train("model=vae", "run_id=x") == 2
    assert "holds a run of another method or seed" in capfd.readouterr().err
    assert train("model=gan", "run_id=y") == 0  # it had not begun
    assert seen(Path("outputs/y"))["arguments"] == []


@pytest.mark.slow
def test_a_requeued_step_of_srun_resumes_on_every_rank(train, monkeypatch):
    step = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    train("model=gan")
    write_status(Path("outputs/slurm-7-0"), Status("running", heartbeat=time.time()))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("SLURM_PROCID", rank)
        assert train("model=gan") == 0
        assert seen(Path("outputs/slurm-7-0"))["arguments"] == ["--resume"]
    assert len(runs()) == 1


@pytest.mark.slow
def test_a_requeued_command_of_a_study_finds_its_run(train, monkeypatch):
    train("model=gan", "study=s")
    write_status(runs()[0], Status("interrupted"))
    for name, value in REQUEUED.items():
        monkeypatch.setenv(name, value)
    assert train("model=gan", "study=s") == 0
    assert [seen(run)["arguments"] for run in runs()] == [["--resume"]]


DIES_ONCE = """
import os, signal
if os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
    from genbench.models.contract import Draws
    def begin(self, step, before=Draws.begin):
        if step == 15 and os.path.exists("outputs/x/checkpoints/last.ckpt"):
            os.kill(os.getpid(), signal.SIGKILL)
        before(self, step)
    Draws.begin = begin
"""


@pytest.mark.slow
def test_torchrun_restarts_a_run_whose_rank_was_killed(tmp_path, cache):
    settings = ["trainer.devices=2", "budget.images=1280", "trainer.steps_per_batch=1"]
    settings += ["model=gan", "trainer.checkpoint_minutes=0"]
    whole = make(tmp_path, cache, *settings)
    fork_ranks(lambda: train_module.main([str(whole)]), tmp_path)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    (tmp_path / "sitecustomize.py").write_text(DIES_ONCE)
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    command = ["genbench", "train", *SMOKE, *settings, "run_id=x"]
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, "-m", *command],
        cwd=tmp_path,
        env=environment(GENBENCH_CACHE=str(cache), PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "failed (exitcode: 1) local_rank: 1" in done.stderr
    killed = tmp_path / "outputs" / "x"
    assert read_status(killed).status == read_status(whole).status == "finished"
    assert scores(killed) == scores(whole)
    histories = [train_module.read_history(run).keys() for run in (killed, whole)]
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_usr1_stops_a_run_with_a_checkpoint_and_a_requeued_job_finishes_it(
    tmp_path, cache, monkeypatch
):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    signalled = stop_by_parent(tmp_path / "marker", "SIGUSR1")
    command = ["train", *SMOKE, "model=gan", "run_id=x", *signalled]
    done = genbench(*command, cwd=tmp_path, cache=cache)
    assert done.returncode == 75, done.stderr
    run = tmp_path / "outputs" / "x"
    assert read_status(run).images == 64
    assert (run / "checkpoints" / "last.ckpt").exists()
    for name, value in REQUEUED.items():
        monkeypatch.setenv(name, value)
    done = genbench(*command, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    assert read_status(run).status == "finished"
    assert read_result(run).budget["images"] == 640
