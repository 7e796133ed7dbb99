"""A run from elsewhere is data, never code; a run that was made here goes on without a word."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from fixtures.launching import seen
from fixtures.places import TESTS
from genbench.commands import evaluate, resume, sample
from genbench.errors import UserMistake
from genbench.runs import trust
from genbench.runs.config import read_config, write_config
from genbench.runs.paths import config_root
from genbench.runs.status import Status, write_status

MARK = "mark"  # the file that a gadget would write
THE_FILE = {"_target_": "pathlib.Path", "_args_": [MARK]}
WRITE = {"_target_": "pathlib.Path.write_text", "_args_": [THE_FILE, "x"]}
TOUCH = {"_target_": "os.system", "_args_": [f"touch {MARK}"]}
GADGETS = {
    "a method": WRITE,
    "a builtin": {"_target_": "builtins.exec", "_args_": [f"open('{MARK}', 'w')"]},
    "a shell": TOUCH,
    "a process": {"_target_": "subprocess.check_call", "_args_": [["touch", MARK]]},
    "a class of processes": {"_target_": "subprocess.Popen", "args": ["touch", MARK]},
    "deep in a list": [[{"a": [WRITE]}]],
    "in an argument of genbench's": {
        "_target_": "genbench.networks.mlp.MLPDecoder", "image_size": 8, "channels": 1, "latent_dim": 16,
        "width": 8, "depth": TOUCH,
    },
    "for later": {"_target_": "builtins.exec", "_partial_": True},
    "by Hydra's look-up": {"_target_": "hydra.utils.get_method", "path": "os.system"},
    "by Hydra's call": {"_target_": "hydra.utils.instantiate", "config": TOUCH},
    "what a module of genbench imports": {
        "_target_": "genbench.metrics.feature_workers.subprocess.Popen", "args": ["touch", MARK],
    },
    "a class that a module of genbench imports": {
        "_target_": "genbench.data.archive.Path", "_args_": [MARK],
    },
    "the launcher": {
        "_target_": "genbench.launch.worker.start_worker", "worker": "timeit",
        "arguments": [f"open('{MARK}', 'w')"], "environment": {},
    },
    "a function of genbench": {"_target_": "genbench.runs.files.write_json", "_args_": [MARK, 1]},
    "a function of torch.nn": {"_target_": "torch.nn.init.zeros_", "_args_": [MARK]},
    "what torch.nn imports": {"_target_": "torch.nn.modules.module.OrderedDict"},
    "what is below torch": {"_target_": "torch.nn.modules.module.torch.load", "_args_": [MARK]},
    "a method of a module": {"_target_": "torch.nn.Module.load_state_dict"},
    "no name": {"_target_": ["os.system"]},
    "a secret": "${oc.env:HOME}",
}  # fmt: skip


@pytest.fixture
def run(room) -> Path:
    """A run of a few steps, whose config is as if it came from elsewhere."""
    shutil.copytree(TESTS / "fixtures" / "old_runs" / "vae", room / "pulled")
    return room / "pulled"


def put(run: Path, part: object, block: str = "callbacks") -> None:
    config = read_config(run)
    config[block] = {**config[block], "extra": part}
    write_config(run, config)


@pytest.mark.parametrize("name", GADGETS)
def test_a_gadget_is_refused_before_anything_is_called(run, name):
    from genbench.training import targets

    put(run, GADGETS[name])
    with pytest.raises(UserMistake, match="pulled .*callbacks.extra.*--trust"):
        targets.check(run)
    assert not Path(MARK).exists()


@pytest.mark.parametrize("block", ["model", "dataset", "evaluation", "trainer", "network"])
def test_every_program_that_builds_a_run_refuses_it(run, block):
    from genbench import evaluate as scoring
    from genbench import sample as sampling
    from genbench import train as training

    put(run, WRITE, block)
    protocol = run / "protocol.yaml"
    protocol.write_text(yaml.safe_dump({"evaluation": read_config(run)["evaluation"]}))
    for program, arguments in [
        (sampling, [str(run)]),
        (scoring, [str(run), str(protocol)]),
        (training, [str(run), "--resume"]),
    ]:
        with pytest.raises(UserMistake, match=r"names pathlib\.Path\.write_text as its .*--trust"):
            program.main(arguments)
    assert not Path(MARK).exists()


@pytest.mark.parametrize("verb", [sample, evaluate, resume])
def test_a_command_refuses_without_starting_a_worker_until_it_is_told_to_trust(run, room, verb):
    from fixtures.launching import FINISHES

    (room / "stub_worker.py").write_text(FINISHES)
    put(run, {"_target_": f"elsewhere.{verb.__name__.rpartition('.')[2].title()}"})
    write_status(run, Status("interrupted"))
    with pytest.raises(UserMistake, match=r"names elsewhere\.\w+ as its callbacks\.extra"):
        verb.main([str(run)], worker="stub_worker")
    assert not (run / "seen.json").exists()
    assert verb.main([str(run), "--trust"], worker="stub_worker") == 0
    assert "--trust" not in seen(run)["arguments"]
    write_status(run, Status("interrupted"))
    assert verb.main([str(run)], worker="stub_worker") == 0  # it is remembered


def test_trusted_code_is_run(run):
    from genbench import sample as sampling

    put(run, WRITE, "model")
    trust.trust(run)
    with pytest.raises(Exception, match="extra"):  # VAE has no such argument: it was called
        sampling.main([str(run)])
    assert Path(MARK).exists()


def test_trust_is_for_these_arguments_alone(run):
    put(run, {"_target_": "elsewhere.Model", "width": 8})
    trust.trust(run)
    trust.check(run)
    put(run, {"_target_": "elsewhere.Model", "width": 9})
    with pytest.raises(UserMistake, match="elsewhere"):
        trust.check(run)


@pytest.mark.slow
def test_a_run_that_was_made_here_is_resumed_scored_and_sampled_wherever_it_lies(train, room):
    mine = "+callbacks.mine={_target_: mine.Callback, path: '\\${oc.env:HOME}', rows: [1, 0.5]}"
    assert train("run_id=run", mine) == 0
    run = room / "outputs" / "run"
    (room / "moved").mkdir()
    run = run.rename(room / "moved" / "run")
    for verb in (sample, evaluate, resume):
        write_status(run, Status("interrupted"))
        assert verb.main([str(run)], worker="stub_worker") == 0


@pytest.mark.slow
def test_what_a_resumed_run_is_given_by_its_user_is_known_too(train, room):
    train("run_id=run")
    run = room / "outputs" / "run"
    added = "+trainer.plugin={_target_: mine.Plugin}"
    for arguments in ([added], []):
        write_status(run, Status("interrupted"))
        assert resume.main([str(run), *arguments], worker="stub_worker") == 0


def test_the_defaults_that_a_run_chooses_are_names(run):
    config = read_config(run)
    for key, value in [
        ("hydra.searchpath", "[file://.]"),
        ("model", "vae,gan"),
        ("a", "${oc.env:B}"),
    ]:
        write_config(run, {**config, "choices": {**config["choices"], key: value}})
        with pytest.raises(UserMistake, match="choices"):
            trust.check(run)


def test_every_shipped_config_may_be_built():
    from genbench.training import targets

    files = [
        path
        for path in config_root().rglob("*.yaml")
        if path.relative_to(config_root()).parts[0] != "hydra"
    ]
    named = 0
    for path in files:
        config = yaml.safe_load(path.read_text()) or {}
        for part in trust.parts(config) if isinstance(config, dict) else ():
            if part.is_class:
                named += 1
                assert trust.is_known(part.what) and targets._is_admissible(part), part.what
    assert named > 30


def test_a_record_that_cannot_be_written_is_told(run, monkeypatch):
    Path("a-file").write_text("")
    monkeypatch.setenv("GENBENCH_STATE", "a-file")
    put(run, WRITE)
    with pytest.raises(UserMistake, match="GENBENCH_STATE"):
        trust.trust(run)
    trust.remember(run)  # a run that is made must not fail of it


def test_a_pickle_of_pictures_calls_nothing(tmp_path):
    from genbench.data.sources import ArraysOnly

    path = tmp_path / "batch"
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for protocol in (0, 2, 5):
        path.write_bytes(pickle.dumps({"data": rows, "labels": [1, 2]}, protocol))
        with path.open("rb") as file:
            assert (ArraysOnly(file, encoding="latin1").load()["data"] == rows).all()

    class Gadget:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / MARK)!r}, 'w')",)

    path.write_bytes(pickle.dumps({"data": Gadget()}))
    with path.open("rb") as file, pytest.raises(pickle.UnpicklingError, match=r"builtins\.exec"):
        ArraysOnly(file, encoding="latin1").load()
    assert not (tmp_path / MARK).exists()
