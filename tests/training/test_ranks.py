"""Several devices: the same numbers as one, and a failure of one rank ends all. Two CPU ranks, gloo."""

import contextlib
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from fixtures import two_ranks
from fixtures.callbacks import stop_by_parent
from fixtures.forks import fork_ranks
from fixtures.processes import wait_for
from fixtures.ranks import run_on_ranks
from fixtures.trainers import BATCH, CASES, STEPS
from genbench.errors import Diverged, GenbenchError, Interrupted, UserMistake
from genbench.runs import ended_ranks
from genbench.runs.status import read_status
from genbench.training import checks, ranks

TOLERANCE = 3e-6  # of parameters: Adam amplifies rounding of small gradients; no player moves less than 1e-5


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache) -> Path:
    """All cases, trained by two ranks."""
    folder = tmp_path_factory.mktemp("two")
    fork_ranks(lambda: two_ranks.train_all(folder, cache), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_with_half_the_batch_each_reach_the_parameters_of_one(
    tmp_path, cache, trained, case
):
    first = torch.load(trained / f"{case}-0.pt")
    second = torch.load(trained / f"{case}-1.pt")
    alone = two_ranks.train(tmp_path, cache, 1, case)
    assert all(torch.equal(first[name], second[name]) for name in alone)
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=TOLERANCE)
    exchanged, needed = torch.load(trained / f"{case}-0-exchanged.pt")
    # the gradients of each move once; BatchNorm exchanges its statistics too, which are few
    small = 100 * STEPS if case == "in-portions" else 0  # portions that are counted as votes
    assert needed - small <= exchanged <= needed
    counted = [torch.load(f / f"{case}-0-tally.pt") for f in (trained, tmp_path)]
    assert counted[0] == counted[1] and counted[0]["decoder_rows"] >= STEPS * BATCH


def processes_of(folder: Path) -> list[int]:
    """Live processes whose command line names the run directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if str(folder / "outputs" / "x") in command and state != "Z":
            found.append(int(entry.name))
    return found


ENDS = """
import os, signal, sys
ranks = {"1": 1, None: 0} if "genbench.work" in sys.orig_argv else {}
if ranks.get(os.environ.get("LOCAL_RANK")) == VICTIM:
    from genbench.models.contract import Draws
    def begin(self, step, before=Draws.begin):
        if step == 30:
            ENDING
        before(self, step)
    Draws.begin = begin
"""
RAISES, DIES = 'raise ValueError("no more of this")', "os.kill(os.getpid(), signal.SIGKILL)"


def run_until(end: str, victim: int, folder: Path, cache: Path) -> tuple[str, str]:
    """A run of which a rank ends in its step 30: (standard error, reason)."""
    code = ENDS.replace("VICTIM", str(victim)).replace("ENDING", end)
    done = run_on_ranks(folder, cache, code=code)
    assert done.returncode == 1
    status = read_status(folder / "outputs" / "x")
    assert status.status == "failed"
    wait_for(lambda: not processes_of(folder), 10)
    return done.stderr, status.reason


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_exception_in_a_rank_ends_the_run_with_its_message(tmp_path, cache):
    error, reason = run_until(RAISES, 1, tmp_path, cache)
    assert "rank 1: ValueError: no more of this" in error
    assert "no more of this" in reason


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_run(tmp_path, cache, victim):
    error, reason = run_until(DIES, victim, tmp_path, cache)
    assert "killed by signal 9" in reason
    assert "killed by signal 9" in error


@pytest.mark.slow
def test_a_stop_signal_interrupts_all_ranks(tmp_path, cache):
    done = run_on_ranks(tmp_path, cache, *stop_by_parent(tmp_path / "marker", "SIGTERM"))
    assert done.returncode == 75, done.stderr
    assert read_status(tmp_path / "outputs" / "x").status == "interrupted"
    assert (tmp_path / "outputs" / "x" / "checkpoints" / "last.ckpt").exists()


# --- the pieces ---------------------------------------------------------------------------------


def test_a_later_rank_writes_its_error_to_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(ranks, "die_with_the_first", lambda: None)

    def work() -> None:
        raise ValueError("broken")

    assert ranks.follow(tmp_path, work, lambda error: GenbenchError(str(error))) == 1
    assert (tmp_path / "ranks" / "3.txt").read_text() == "broken"
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("rank 3: Traceback") and log.endswith("ValueError: broken\n")


@pytest.mark.parametrize("end", [Interrupted("asked"), Diverged("nan")])
def test_interruption_and_divergence_are_no_error_of_a_rank(tmp_path, monkeypatch, end):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(ranks, "die_with_the_first", lambda: None)

    def work() -> None:
        raise end

    assert ranks.follow(tmp_path, work, lambda error: error) == 0
    assert not (tmp_path / "ranks").exists()


def test_rank_0_under_another_launcher_reports_the_errors_of_other_ranks(tmp_path):
    watch = ranks.Watch(tmp_path, lambda: [], lambda reason: None)
    with pytest.raises(GenbenchError, match="rank 2: out of paper"), watch:
        (tmp_path / "ranks").mkdir()
        (tmp_path / "ranks" / "2.txt").write_text("out of paper")
        raise RuntimeError("Connection closed by peer")


def test_a_batch_norm_of_another_class_is_refused_over_ranks():
    class Model(torch.nn.Module):
        compares_images = False

        def __init__(self, norm: torch.nn.Module) -> None:
            super().__init__()
            self.decoder = norm

    class Own(torch.nn.BatchNorm2d):
        pass

    with pytest.raises(
        UserMistake, match="decoder normalises over its batch by Own, which several"
    ):
        checks.check_ranks(Model(Own(4)))
    checks.check_ranks(Model(torch.nn.BatchNorm2d(4)))
    checks.check_ranks(Model(torch.nn.GroupNorm(2, 4)))


def test_several_nodes_need_somebody_who_starts_the_others(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    ranks.check_nodes(1)
    with pytest.raises(UserMistake, match="num_nodes=2, but nothing has started genbench"):
        ranks.check_nodes(2)
    monkeypatch.setenv("SLURM_NTASKS", "8")
    ranks.check_nodes(2)
    with pytest.raises(UserMistake, match="num_nodes=0: give 1 or more"):
        ranks.check_nodes(0)


SRUN = {
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_JOB_ID": "9004",
    "SLURM_STEP_ID": "1",
}


@pytest.fixture
def tasks(monkeypatch):
    """Be a task of srun, with further variables."""
    for name in ("MASTER_PORT", "MASTER_ADDR"):
        monkeypatch.setenv(name, "")  # and back afterwards
        monkeypatch.delenv(name)

    def begin(**more):
        for name, value in (SRUN | more).items():
            monkeypatch.setenv(name, value)

    return begin


def test_processes_that_are_no_ranks_of_the_run_are_refused(tasks, monkeypatch):
    """They would all train it, into one directory."""
    ranks.check_launched(1, 1)
    tasks()
    ranks.check_launched(2, 2)
    with pytest.raises(
        UserMistake, match="srun has started 4 processes .*devices=1 .*makes 1: choose"
    ):
        ranks.check_launched(1, 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    ranks.check_launched(2, 1)
    with pytest.raises(UserMistake, match="torchrun has started 2 processes"):
        ranks.check_launched(4, 1)


def test_tasks_of_srun_are_ranks_whatever_the_job_is_called(tasks, monkeypatch):
    assert ranks.of_srun() == []
    tasks(SLURM_JOB_NAME="interactive", SLURM_STEP_NODELIST="node[7-8]", SLURM_PROCID="3")
    (found,) = ranks.of_srun()
    assert found.creates_processes_externally
    assert (found.world_size(), found.global_rank(), found.main_address) == (4, 3, "node7")
    port = found.main_port
    monkeypatch.delenv("MASTER_PORT")
    tasks(SLURM_STEP_ID="2")
    assert ranks.of_srun()[0].main_port != port  # another run in the same job
    monkeypatch.setenv("MASTER_PORT", "2345")
    assert ranks.of_srun()[0].main_port == 2345
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(UserMistake, match="without --ntasks-per-node"):
        ranks.of_srun()


class Exit(BaseException):
    pass


@pytest.fixture
def ended(monkeypatch):
    """Codes with which this process would have ended."""
    codes = []

    def exit(code):
        codes.append(code)
        raise Exit

    monkeypatch.setattr(ranks.os, "_exit", exit)
    monkeypatch.setattr(ranks, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(ranks, "GRACE_SECONDS", 0.01)
    return codes


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_first_rank_ends_with_one_of_srun_while_it_waits_in_a_collective(
    tmp_path, ended, capsys, tasks
):
    tasks()
    told = []
    with ranks.Watch(tmp_path, lambda: [], told.append):
        ended_ranks.leave_word(tmp_path, 3, "out of memory")
        wait_for(lambda: ended, 5)
    assert (ended, told) == ([1], ["rank 3: out of memory"])
    assert "genbench: rank 3: out of memory" in capsys.readouterr().err


def test_other_ranks_of_srun_end_with_the_first(tmp_path, ended, tasks):
    ended_ranks.leave_word(tmp_path, 2, "of an earlier attempt")
    waiting = threading.Thread(target=suppressed, args=[tmp_path])
    waiting.start()
    time.sleep(0.05)
    ranks.tell_others(tmp_path, GenbenchError("of a rank that this process has started itself"))
    assert not ended
    tasks()
    ranks.tell_others(tmp_path, Interrupted("all of them are"))
    assert not ended
    ranks.tell_others(tmp_path, GenbenchError("no room"))
    waiting.join(5)
    assert ended == [1]
    assert "rank 0: no room" in ended_ranks.words(tmp_path)
    ended_ranks.forget_words(tmp_path)
    assert ended_ranks.words(tmp_path) == ""


def suppressed(directory):
    with contextlib.suppress(Exit):
        ranks.end_with_others(directory)


def test_ranks_that_have_chosen_differently_are_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)

    def gather(found, own):
        found[:] = [own, other]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    other = "bf16-mixed"
    ranks.agree("precisions", "bf16-mixed")
    other = "32-true"
    with pytest.raises(UserMistake, match="precisions .rank 0 bf16-mixed, rank 1 32-true"):
        ranks.agree("precisions", "bf16-mixed")


def test_while_ranks_meet_a_signal_ends_the_process_at_once():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ranks.killable():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("strategy", ["fsdp", "ddp_spawn", "deepspeed"])
def test_other_strategies_are_refused(strategy):
    from genbench.training.trainer import _strategy

    with pytest.raises(UserMistake, match=f"strategy={strategy} is not one of auto, ddp"):
        _strategy(strategy, 2)


def test_ranks_begin_alike_and_nothing_wraps_the_model(monkeypatch):
    """PyTorch's wrapper would exchange in every backward, on hooks made on another stream."""
    from genbench.training.exchange import Ranks

    sent: list[int] = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, rank: sent.append(rank))
    strategy = Ranks()
    strategy.model = model = torch.nn.BatchNorm1d(3)
    strategy.configure_ddp()
    assert strategy.model is model
    assert sent == [0] * 5  # weight, bias, mean, variance, count


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_several_devices_have_one_strategy(strategy):
    from genbench.training.exchange import Ranks
    from genbench.training.trainer import _strategy

    assert isinstance(_strategy(strategy, 2), Ranks)
    assert _strategy(strategy, 1) == "auto"
