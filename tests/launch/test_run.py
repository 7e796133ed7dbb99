"""From a command line to a worker process and back, with stub workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fixtures.launching import FINISHES, runs, seen
from fixtures.places import slow_but
from fixtures.processes import is_alive, wait_for
from genbench.errors import UserMistake
from genbench.launch import host, task, worker
from genbench.runs.config import read_config
from genbench.runs.status import read_status

SLOW = """
import os, signal, sys, time
from pathlib import Path
from genbench.runs.status import Status, write_status
run = Path(sys.argv[1])
def stop(number, frame):
    (run / "stops").open("a").write(f"{number}\\n")
    if "stubborn" not in run.name:
        time.sleep(0.3)
        write_status(run, Status("interrupted", "stopped"))
        sys.exit(75)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR2, stop)  # Ctrl-C in the parent
(run / "pid").write_text(str(os.getpid()))
for _ in range(600):
    time.sleep(0.1)
"""


# --- one run ------------------------------------------------------------------------------------


def test_a_run_gets_a_directory_with_its_resolved_config(train):
    assert train("model=gan", "seed=3", "budget.images=1.5M") == 0
    (run,) = runs()
    config = read_config(run)
    assert config["choices"]["model"] == "gan"
    assert (config["seed"], config["run_id"]) == (3, run.name)
    assert config["budget"]["images"] == "1.5M"
    assert "${" not in (run / "config.yaml").read_text()
    assert Path(config["paths"]["data"]).is_absolute()
    assert "hydra" not in config


def test_the_worker_is_a_fresh_process_with_a_clean_environment(train, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert train("study=two words") == 0
    found = seen(runs()[0])
    assert not found["torch"]
    assert found["session"]
    assert not {"RANK", "LOCAL_RANK", "MASTER_ADDR"} & set(found["environment"])
    assert found["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert int(found["environment"]["OMP_NUM_THREADS"]) == host.physical_cores()
    assert found["environment"]["GENBENCH_COMMAND"] == "genbench train 'study=two words'"


def test_thread_settings_of_the_user_are_kept(train, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    train()
    assert seen(runs()[0])["environment"]["OMP_NUM_THREADS"] == "17"
    assert seen(runs()[0])["environment"]["OMP_WAIT_POLICY"] == "ACTIVE"


def test_ranks_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert worker.worker_environment("", processes=10_000)["OMP_NUM_THREADS"] == "1"


def test_the_command_line_and_the_environment_are_put_back(train):
    before, environment = list(sys.argv), dict(os.environ)
    train()
    with pytest.raises(UserMistake):
        train("modle=gan")
    assert sys.argv == before
    assert dict(os.environ) == environment


@pytest.mark.slow
def test_a_run_id_that_exists_is_refused(train, capfd):
    assert train("run_id=first") == 0
    assert train("run_id=first") == 2
    assert "exists, and no run is ever overwritten" in capfd.readouterr().err


@pytest.mark.parametrize("code", slow_but([1, 75], 75))  # 0 is that of all others
def test_the_workers_exit_code_is_the_commands(train, code):
    source = FINISHES.replace('"finished"', '"failed"') + f"sys.exit({code})"
    assert train(source=source) == code
    assert len(runs()) == 1


def test_a_run_that_the_worker_refuses_leaves_no_directory(train, capfd):
    assert train(source="import sys; sys.exit('no' if len(sys.argv) > 9 else 2)") == 2
    assert runs() == []
    assert list(Path("outputs").iterdir()) == []


def test_a_worker_that_dies_gets_a_final_status(train):
    assert train(source="import os; os.kill(os.getpid(), 9)") == 1
    status = read_status(runs()[0])
    assert status.status == "failed"
    assert status.reason.startswith("the worker was killed by signal 9 (out of memory?)")
    assert "genbench resume" in status.reason


def test_a_worker_that_writes_no_final_status_gets_one(train):
    assert train(source="raise SystemExit(3)") == 1
    assert read_status(runs()[0]).status == "failed"


def test_unwritable_outputs_are_a_mistake(train, room):
    (room / "file").write_text("")
    with pytest.raises(UserMistake, match="choose another place with paths.outputs"):
        train("paths.outputs=file/outputs")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_a_mistake_and_leaves_no_directory(room, monkeypatch, capfd):
    limit = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (0, 0));"
    code = f"{limit} import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    code += "from genbench.launch import task; sys.exit(task.train([]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot write to" in done.stderr
    assert runs() == []


# --- Hydra's own --------------------------------------------------------------------------------


def test_cfg_job_prints_the_composition_and_trains_nothing(train, capfd):
    assert train("--cfg", "job", "model=gan") == 0
    printed = yaml.safe_load(capfd.readouterr().out)
    assert printed["model"]["_target_"] == "genbench.models.gan.GAN"
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_help_lists_groups_and_settings(room, capfd):
    with pytest.raises(SystemExit) as done:
        task.train(["--help"])
    assert not done.value.code
    printed = capfd.readouterr().out
    assert "\nmodel: aae, " in printed and ", gan, gan-hinge, " in printed
    assert "Hydra" not in printed


@pytest.mark.parametrize("where", slow_but(["genbench_configs", "mine"], "mine"))
def test_configs_of_the_user_precede_shipped_ones(train, room, monkeypatch, where, capfd):
    (room / where / "model").mkdir(parents=True)
    (room / where / "model" / "vae.yaml").write_text("_target_: mine.VAE\n")
    (room / where / "model" / "own.yaml").write_text("_target_: mine.Own\n")
    if where == "mine":
        monkeypatch.setenv("GENBENCH_CONFIG_PATH", where)
    train()
    assert read_config(runs()[0])["model"]["_target_"] == "mine.VAE"
    with pytest.raises(UserMistake, match="did you mean model=own"):
        train("model=onw")
    train("--cfg", "job", "model=own")
    assert "mine.Own" in capfd.readouterr().out


def test_config_dir_adds_configs_also_to_suggestions(train, room, capfd):
    (room / "more" / "model").mkdir(parents=True)
    (room / "more" / "model" / "own.yaml").write_text("strength: 1.0\n")
    train("--config-dir", "more", "--cfg", "job", "model=own", "model.strength=2")
    assert "strength: 2" in capfd.readouterr().out
    with pytest.raises(UserMistake, match=r"did you mean model\.strength"):
        train("--config-dir", "more", "model=own", "strenght=2")


def test_a_missing_config_path_is_a_mistake(train, monkeypatch):
    monkeypatch.setenv("GENBENCH_CONFIG_PATH", "nowhere")
    with pytest.raises(UserMistake, match="GENBENCH_CONFIG_PATH names .*nowhere"):
        train()


def test_other_hydra_applications_do_not_see_our_configs(room):
    (room / "genbench_configs").mkdir()
    (room / "conf").mkdir()
    (room / "conf" / "main.yaml").write_text("a: 1\n")
    code = (
        "import genbench.launch.settings\nfrom hydra import initialize_config_dir\n"
        "from hydra.core.global_hydra import GlobalHydra\n"
        f"with initialize_config_dir({str(room / 'conf')!r}, version_base='1.3'):\n"
        "    print(GlobalHydra.instance().config_loader().get_search_path())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "main" in printed
    assert "genbench_configs" not in printed


# --- sweeps -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failure_and_sums_up(train, capfd):
    source = """
import sys, yaml
from pathlib import Path
from genbench.runs.status import Status, write_status
run = Path(sys.argv[1])
seed = yaml.safe_load((run / "config.yaml").read_text())["seed"]
write_status(run, Status(["finished", "diverged", "finished"][seed], "NaN"))
sys.exit([0, 1, 0][seed])
"""
    assert train("-m", "model=gan", "seed=0,1,2", source=source) == 1
    assert len(runs()) == 3
    printed = capfd.readouterr().out
    assert "2 of 3 runs finished" in printed
    assert printed.count("diverged") == 1
    assert "model=gan seed=1" in printed
    assert sorted(p.name for p in Path("outputs").iterdir()) == [run.name for run in runs()]


@pytest.mark.slow
def test_a_run_of_a_sweep_records_the_command_that_repeats_it_alone(train):
    assert train("-m", "model=vae,gan", "study=a b") == 0
    commands = {seen(run)["environment"]["GENBENCH_COMMAND"] for run in runs()}
    assert commands == {
        "genbench train model=vae 'study=a\\ b'",
        "genbench train model=gan 'study=a\\ b'",
    }


@pytest.mark.slow
def test_a_setting_of_a_swept_model_need_not_be_one_of_the_default_model(train):
    setting = "model.generator_optimizer.betas=[0,0.9]"
    assert train("-m", "model=gan,lsgan", setting, "model.r1_gamma=2,3") == 0
    configs = [read_config(run) for run in runs()]
    assert len(configs) == 4
    assert {c["model"]["r1_gamma"] for c in configs} == {2, 3}
    betas = [c["model"]["generator_optimizer"]["betas"] for c in configs]
    assert betas == [[0.0, 0.9]] * 4
    assert all(type(b[0]) is float for b in betas)  # Adam refuses the 0 that was typed


@pytest.mark.slow
def test_a_sweep_stops_on_interruption(train, capfd):
    argv = ("-m", "hydra/launcher=basic", "seed=0,1,2")
    assert train(*argv, source=FINISHES + "sys.exit(75)") == 75
    assert len(runs()) == 1


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_refused_run(train):
    assert train("-m", "run_id=same", "seed=0,1") == 1
    assert len(runs()) == 1


# --- signals ------------------------------------------------------------------------------------


@pytest.fixture
def parent(room):
    """Start `train` in a process of its own, and wait until its worker works."""
    started = []

    def start(run_id="run"):
        (room / "stub_worker.py").write_text(SLOW)
        code = "import sys; from genbench.launch import task; "
        code += f"sys.exit(task.train(['run_id={run_id}'], worker='stub_worker'))"
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        started.append(process)
        pid = room / "outputs" / run_id / "pid"
        wait_for(lambda: pid.exists() and pid.read_text())
        return process, int(pid.read_text())

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_is_forwarded_once_and_the_checkpoint_waited_for(parent, number, room):
    process, _ = parent()
    os.killpg(process.pid, number)  # what a terminal does: to the whole group
    assert process.wait(30) == 75
    run = room / "outputs" / "run"
    assert read_status(run).status == "interrupted"
    assert len((run / "stops").read_text().splitlines()) == 1


@pytest.mark.slow
def test_the_third_signal_kills_a_stubborn_worker(parent, room):
    process, pid = parent("stubborn")
    stops = room / "outputs" / "stubborn" / "stops"
    for count in (1, 2):
        process.send_signal(signal.SIGINT)
        wait_for(lambda n=count: stops.exists() and len(stops.read_text().splitlines()) == n)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 75
    assert not is_alive(pid)
    assert read_status(stops.parent).status == "interrupted"


@pytest.mark.slow
def test_an_interrupted_sweep_stops_even_if_its_current_run_finished(room):
    (room / "stub_worker.py").write_text(SLOW.replace("sys.exit(75)", "sys.exit(0)"))
    code = "import sys; from genbench.launch import task; "
    code += "argv = ['-m', 'seed=0,1', 'study=s', 'hydra.launcher.slots=1']; "
    code += "sys.exit(task.train(argv, worker='stub_worker'))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: list(room.glob("outputs/*/pid")))
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 75
        assert "stopped: the same command goes on" in process.stdout.read()
    assert len(runs()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child")
def test_a_worker_does_not_outlive_a_killed_parent(parent, room):
    process, pid = parent()
    process.kill()
    wait_for(lambda: not is_alive(pid))
    assert read_status(room / "outputs" / "run").status == "interrupted"


# --- other launchers ----------------------------------------------------------------------------


def test_under_torchrun_all_ranks_share_one_directory(train, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    monkeypatch.setenv("RANK", "0")
    assert train() == 0
    monkeypatch.setenv("RANK", "1")
    assert train() == 0
    (run,) = runs()
    assert run.name == "job7"
    assert seen(run)["environment"]["RANK"] == "1"  # the launch is theirs: kept


def test_under_torchrun_a_missing_run_id_is_a_mistake(train, monkeypatch, capfd):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "0")
    assert train() == 2
    assert "give run_id=NAME" in capfd.readouterr().err


def test_a_step_of_srun_names_the_run(train, monkeypatch):
    for name, value in {"JOB_ID": "5", "STEP_ID": "0", "NTASKS": "2", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert train() == 0
    assert runs()[0].name == "slurm-5-0"


def test_a_task_of_srun_leaves_word_for_the_others_if_its_worker_is_killed(train, monkeypatch):
    """They may wait in a collective for ever; srun ends none because another has failed."""
    for name, value in {"JOB_ID": "5", "STEP_ID": "0", "NTASKS": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    dies = "import os; os.kill(os.getpid(), 9)"
    for rank in ("0", "1"):
        monkeypatch.setenv("SLURM_PROCID", rank)
        assert train(source=dies) == 1
        word = (runs()[0] / "ranks" / f"{rank}.txt").read_text()
        assert word.startswith("its worker was killed by signal 9")
