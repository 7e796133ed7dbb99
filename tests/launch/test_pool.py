"""Many runs at once on one machine, and the missing runs of a study."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from fixtures.launching import STOPPABLE, runs, seen
from fixtures.processes import is_alive, wait_for
from genbench.errors import UserMistake
from genbench.launch import host, live_table, pool, task
from genbench.launch.earlier_runs import identity
from genbench.launch.host import physical_cores
from genbench.runs.config import read_config
from genbench.runs.files import write_json
from genbench.runs.status import Status, read_status, write_status

WORKER = (
    STOPPABLE
    + """
names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "GENBENCH_COMMAND")
(run / "seen.json").write_text(json.dumps({
    "environment": {n: os.environ.get(n) for n in names}, "resumed": sys.argv[2:],
    "began": time.monotonic(), "torch": "torch" in sys.modules}))
(run / "pid").write_text(str(os.getpid()))
print("noise on the terminal")
"""
)
ENDS = "write_status(run, Status('finished', images=9)); sys.exit(0)\n"
WAITS = "time.sleep(60)\n"
MEETS = """
end = time.monotonic() + 20
while len(list(run.parent.glob("*/pid"))) < 2:  # only a run at the same time lets this one end
    assert time.monotonic() < end
    time.sleep(0.02)
"""
SECOND_FAILS = """
if config["seed"] == 1:
    write_status(run, Status("failed", "seed 1 is unlucky"))
    sys.exit(1)
"""


@pytest.fixture
def sweep(room):
    """Sweep with a worker whose source is given; returns the exit code."""

    def run(*argv, source=ENDS):
        (room / "stub_worker.py").write_text(WORKER + source)
        return task.train(["-m", *argv], worker="stub_worker")

    return run


# --- at once ------------------------------------------------------------------------------------


def test_runs_are_trained_at_the_same_time(sweep, capfd):
    assert sweep("seed=0,1", "hydra.launcher.slots=2", source=MEETS + ENDS) == 0
    captured = capfd.readouterr()
    assert "2 of 2 runs finished" in captured.out
    assert "noise" not in captured.out + captured.err
    assert all("noise" in (run / "console.txt").read_text() for run in runs())


@pytest.mark.slow
def test_the_cores_are_divided_among_the_runs(sweep, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert sweep("seed=0,1", "hydra.launcher.slots=2") == 0
    share = max(1, physical_cores() // 2)
    assert {seen(run)["environment"]["OMP_NUM_THREADS"] for run in runs()} == {str(share)}
    assert not any(seen(run)["torch"] for run in runs())


@pytest.mark.slow
def test_a_failing_run_is_reported_at_once_and_stops_no_other(sweep, capfd):
    assert sweep("seed=0,1,2", "hydra.launcher.slots=2", source=SECOND_FAILS + ENDS) == 1
    captured = capfd.readouterr()
    assert "2 of 3 runs finished" in captured.out
    (line,) = [line for line in captured.err.splitlines() if "unlucky" in line]
    assert "failed" in line
    assert "seed=1" in line


@pytest.mark.slow
def test_fail_fast_stops_the_others_with_their_checkpoints(sweep):
    argv = ("seed=0,1,2", "hydra.launcher.slots=2", "hydra.launcher.fail_fast=true")
    source = MEETS + SECOND_FAILS + WAITS
    assert sweep(*argv, source=source) == 75
    assert sorted(read_status(run).status for run in runs()) == ["failed", "interrupted"]


@pytest.mark.slow
def test_interrupting_one_run_stops_no_other(sweep):
    source = "if config['seed'] == 0: os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)\n" + ENDS
    assert sweep("seed=0,1", "hydra.launcher.slots=1", source=source) == 75
    assert sorted(read_status(run).status for run in runs()) == ["finished", "interrupted"]


@pytest.mark.slow
def test_a_run_stopped_after_its_final_status_is_finished(sweep):
    source = "write_status(run, Status('finished')); os.kill(os.getpid(), 9)\n"
    assert sweep("seed=0", source=source) == 0


@pytest.mark.slow
def test_a_refused_run_leaves_no_directory_and_says_why(sweep, capfd):
    source = (
        "print('genbench: no such thing as seed 1', flush=True)\nif config['seed']: sys.exit(2)\n"
    )
    assert sweep("seed=0,1", source=source + ENDS) == 1
    assert len(runs()) == 1
    assert "genbench: no such thing as seed 1" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("hydra.launcher.slots=0", "slots=0 is not a number above 0"),
        ("hydra.launcher.jobs_per_gpu=auto", "jobs_per_gpu=auto is not a number above 0"),
        ("hydra.launcher.gpus_per_job=2", "but no GPU is used here"),
    ],
)
def test_impossible_settings_are_mistakes(sweep, argument, sentence, monkeypatch, capfd):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    try:
        assert sweep("seed=0,1", argument) == 2
    except UserMistake as mistake:
        print(mistake, file=sys.stderr)
    assert sentence in capfd.readouterr().err
    assert runs() == []


# --- GPUs ---------------------------------------------------------------------------------------


def slots(gpus, devices=1, jobs=100, **settings):
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    config = {"trainer": {"accelerator": "auto", "devices": devices}}
    return [
        ",".join(s.gpus) for s in pool.make_slots(pool.PoolSettings(**settings), config, jobs)
    ]  # fmt: skip


def test_gpus_are_divided_among_runs(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert slots("0,1,2,3") == ["0", "1", "2", "3"]
    assert slots("4,6") == ["4", "6"]  # what the process may use, not what is there
    assert slots("0,1,2,3", devices=2) == ["0,1", "2,3"]
    assert slots("0,1,2,3", devices=-1) == ["0,1,2,3"]
    assert slots("0,1,2,3", gpus_per_job=3) == ["0,1,2"]
    assert slots("0,1", jobs_per_gpu=2) == ["0", "1", "0", "1"]
    assert slots("0,1,2,3", slots=3) == ["0", "1", "2"]
    assert slots("0,1,2,3", jobs=2) == ["0", "1"]
    with pytest.raises(UserMistake, match="4 GPUs, but this machine has 2"):
        slots("0,1", devices=4)
    with pytest.raises(UserMistake, match="exclude each other"):
        slots("0,1", gpus_per_job=2, jobs_per_gpu=2)


@pytest.mark.slow
def test_a_run_sees_only_its_own_gpus(sweep, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert sweep("seed=0,1", source=MEETS + ENDS) == 0
    assert sorted(seen(run)["environment"]["CUDA_VISIBLE_DEVICES"] for run in runs()) == ["5", "7"]


def test_gpus_are_listed_by_nvidia_smi(room, monkeypatch):
    for name in (host.CUDA, host.HIP, host.ROCR):
        monkeypatch.delenv(name, raising=False)
    program = room / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0\necho 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{room}:{os.environ['PATH']}")
    assert host.visible_gpus() == ["0", "1"]
    program.write_text("#!/bin/sh\necho 0\necho GPU 1 is lost >&2\nexit 15\n")
    monkeypatch.setattr(host, "_gpus_of_driver", lambda: ["0", "1"])
    assert host.visible_gpus() == ["0", "1"]  # else as many runs as cores would share the first one


# --- a study that is started again --------------------------------------------------------------


@pytest.mark.slow
def test_a_study_started_again_runs_only_what_is_missing(sweep, capfd):
    assert sweep("study=s", "seed=0") == 0
    first = set(runs())
    assert sweep("study=s", "seed=0,1") == 0
    (new,) = set(runs()) - first
    assert read_config(new)["seed"] == 1
    assert "2 of 2 runs finished" in (printed := capfd.readouterr().out)
    assert printed.count("there already") == 1


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ("model.beta=2", False), ("arena.images=1k", False), ("evaluation.num_samples=7", False),
        ("seed=5", False), ("dataset=mnist", False), ("trainer.progress=false", True),
        ("tags=[x]", True), ("logger=csv", True), ("paths.cache=elsewhere", True),
        ("run_id=mine", True), ("study=other", True), ("evaluation.split=validation", False),
        ("evaluation.split=test", True), ("search={trials:3}", False),
    ],
)  # fmt: skip
def test_a_run_is_identified_by_method_seed_and_evaluation(changed, same, train_config):
    assert (identity(train_config()) == identity(train_config(changed))) is same


@pytest.fixture
def train_config(room, capfd):
    """The plain config of a run."""

    def compose(*overrides):
        task.train(["--cfg", "job", "--resolve", *overrides])
        return yaml.safe_load(capfd.readouterr().out)

    return compose


def test_a_config_of_before_is_the_run_that_it_was(train_config):
    now = train_config()
    before = {key: value for key, value in now.items() if key != "search"}
    before["evaluation"] = {k: v for k, v in now["evaluation"].items() if k != "split"}
    assert identity(before) == identity(now)


@pytest.mark.slow
def test_a_run_of_another_study_does_not_count(sweep):
    assert sweep("study=s") == 0
    assert sweep("study=ss") == 0
    assert len(runs()) == 2


@pytest.mark.slow
def test_without_a_study_every_sweep_is_a_new_one(sweep):
    assert sweep("seed=0") == 0
    assert sweep("seed=0") == 0
    assert len(runs()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pool", "basic"])
def test_an_interrupted_run_of_a_study_is_resumed_and_a_failed_one_begun_again(sweep, launcher):
    argv = ("study=s", "seed=0,1,2", f"hydra/launcher={launcher}")
    assert sweep(*argv) == 0
    # ids of one second are in no order
    first, second, third = sorted(runs(), key=lambda run: read_config(run)["seed"])
    write_status(first, Status("interrupted"))
    write_status(second, Status("failed", "the cat"))
    write_status(third, Status("diverged", "NaN"))
    assert sweep(*argv) == 1  # the one that diverged is a result, and stays one
    assert seen(first)["resumed"] == ["--resume"]
    assert seen(third)["resumed"] == []
    assert sorted(read_config(run)["seed"] for run in runs()) == [0, 1, 1, 2]


# --- signals ------------------------------------------------------------------------------------


@pytest.fixture
def parent(room):
    """Start a sweep in a process of its own, and wait until two workers work."""
    (room / "stub_worker.py").write_text(WORKER + WAITS)
    code = "import sys; from genbench.launch import task; sys.exit(task.train(['-m', 'seed=0,1,2', "
    code += "'study=s', 'hydra.launcher.slots=2'], worker='stub_worker'))"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    wait_for(lambda: len(list(room.glob("outputs/*/pid"))) == 2)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_first_signal_lets_every_run_write_its_checkpoint(parent, number):
    os.killpg(parent.pid, number)
    assert parent.wait(60) == 75
    assert [read_status(run).status for run in runs()] == ["interrupted"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child")
@pytest.mark.slow
def test_no_run_outlives_a_killed_parent(parent):
    pids = [int((run / "pid").read_text()) for run in runs()]
    parent.kill()
    wait_for(lambda: not any(is_alive(pid) for pid in pids))


# --- the table ----------------------------------------------------------------------------------


def test_the_live_table_shows_state_speed_score_and_time_left(room):
    run = room / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    status = Status(
        "running", heartbeat=time.time(), images=500, total_images=2000, images_per_second=25.0
    )
    write_status(run, status)
    (run / "history.csv").write_text("images,loss,images_per_second\n100,3.0,9\n500,2.5,25\n")
    state, name, speed, score, left, settings = live_table.running_row(run, ["model=gan", "seed=0"])
    assert (str(state), name, speed) == ("running 25%", "run", "25")
    assert (score, left, settings) == ("loss 2.5", "1:00", "model=gan seed=0")
    write_json(run / "result.json", {"scores": [{"name": "fd", "value": 1.25}]})
    assert live_table.last_score(run) == "fd 1.25"


def test_the_live_table_draws_on_a_terminal(room):
    code = (
        "import time\nfrom pathlib import Path\nfrom genbench.launch.live_table import LiveTable\n"
        "from genbench.launch.task import EndedRun\nfrom genbench.runs.status import Status, write_status\n"
        "run = Path('run'); run.mkdir(); (run / 'config.yaml').write_text('')\n"
        "write_status(run, Status('running', heartbeat=time.time(), images=1, total_images=4))\n"
        "with LiveTable(2) as b:\n"
        "    b.began(run, ['seed=0']); b.refresh()\n"
        "    write_status(run, Status('diverged', 'NaN'))\n"
        "    b.ended(run); b.add(EndedRun(['seed=0'], run, 1, False, 2.0)); b.refresh()\n"
    )
    done = subprocess.run(
        ["script", "-qec", f'{sys.executable} -c "{code}"', "/dev/null"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "120", "TERM": "xterm"},
    )  # fmt: skip
    assert "running 25%" in done.stdout
    assert "1/2 diverged run (seed=0): NaN" in done.stdout
    assert "1 of 2 runs, 1 failed" in done.stdout


def test_memory_and_gpus_are_found_without_torch():
    code = (
        "import sys, genbench.launch.pool, genbench.launch.host as m; print(m.available_memory()); "
    )
    code += "assert 'torch' not in sys.modules"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(printed.stdout) > 1 << 20, printed.stderr
