"""The garbage collector is off while a worker imports its modules, and on otherwise."""

import gc
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fixtures.places import slow_but
from genbench import work
from genbench.errors import UserMistake

WORKER = """
import gc, runpy, sys
states = {}
class Watch:  # what the collector does when a heavy module is imported
    def find_spec(self, name, path=None, target=None):
        states.setdefault(name, gc.isenabled())
sys.meta_path.insert(0, Watch())
try:
    sys.argv[1:] = ["sample", "--help"]
    runpy.run_module("genbench.work", run_name="__main__", alter_sys=True)
except SystemExit:
    print(states["torch"], states["pytorch_lightning"], gc.isenabled(), gc.get_freeze_count() > 0,
          "scipy.signal" in sys.modules)
"""
LIBRARY = "import gc, genbench.work, genbench.train; print(gc.isenabled(), gc.get_freeze_count())"


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_worker_imports_without_garbage_collection_and_signal_processing():
    assert said(WORKER) == "False False True True False"


@pytest.mark.slow
def test_importing_genbench_leaves_the_garbage_collector_alone():
    assert said(LIBRARY) == "True 0"


@pytest.mark.parametrize("program", ["train", "evaluate", "sample"])
def test_a_program_that_is_started_without_its_entry_says_how_to_start_it(program, monkeypatch):
    monkeypatch.delitem(sys.modules, f"genbench.{program}", raising=False)
    with pytest.raises(SystemExit, match=f"python -m genbench.work {program} RUN"):
        runpy.run_module(f"genbench.{program}", run_name="__main__")


LEFT_OUT = """
import sys
from genbench.work import signal_processing_left_out
with signal_processing_left_out():
    import scipy.signal
    assert hasattr(scipy.signal, "hamming") and "scipy.signal._fir_filter_design" not in sys.modules
    ASKED
import scipy.signal
same = sys.modules["scipy.signal"] is scipy.signal
print(scipy.signal.firwin.__module__, same, hasattr(scipy.signal, "hamming"))
"""


ASKED = ["pass", "from scipy.signal import firwin", "scipy.signal.lfilter"]


@pytest.mark.parametrize("asked", slow_but(ASKED, "scipy.signal.lfilter"))
def test_what_lightning_does_not_need_is_imported_when_it_is_asked_for(asked):
    found = said(LEFT_OUT.replace("ASKED", asked))
    assert found == "scipy.signal._fir_filter_design True False"


END = """
import atexit, os, sys
from genbench.work import leak_reports_left_out
atexit.register(leak_reports_left_out)
atexit.register(os.write, 2, b"a last word")
class Leak:
    def __del__(self, write=os.write):
        write(2, b", leaked")
kept = Leak()  # until modules are torn down
if "triton" in sys.argv:
    sys.modules["triton"] = sys
"""


@pytest.mark.parametrize(
    ("imported", "debug", "seen"),
    [
        ("triton", "", "a last word"),
        ("triton", "1", "a last word, leaked"),
        ("", "", "a last word, leaked"),
    ],
)
def test_the_last_words_of_a_worker_are_those_of_its_exit_handlers(
    imported, debug, seen, monkeypatch
):
    monkeypatch.setenv("GENBENCH_DEBUG", debug)
    command = [sys.executable, "-c", END, imported]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == seen


class Unmade(Exception):
    """What Hydra raises around the error of a class that it makes."""


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (UserMistake("evaluation.num_samples=-1: give more"), "evaluation.num_samples=-1: give", 2),
        (OSError(30, "Read-only file system", "/x/y.png"), "/x/y.png: read-only file system; ", 1),
        (KeyError("x"), "KeyError: 'x' (GENBENCH_DEBUG=1 prints the traceback)", 1),
    ],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_worker_says_in_a_sentence_why_it_failed(
    monkeypatch, capsys, error, sentence, code, wrapped
):
    def fail(argv):
        if wrapped and code == 2:
            raise Unmade("several lines") from error
        raise error

    monkeypatch.setitem(sys.modules, "genbench.failing", SimpleNamespace(main=fail))
    monkeypatch.delenv("GENBENCH_DEBUG", raising=False)
    try:
        assert work.main(["failing"]) == code
    finally:
        gc.unfreeze()
    assert capsys.readouterr().err.startswith(f"genbench: {sentence}")
